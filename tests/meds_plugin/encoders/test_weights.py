"""Reading and fitting weights: the reference's position rule, and files that are no weights."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from meds_plugin.encoders.weights import read_weights, resize_pos_embed
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Golden = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("side", [28, 32, 16])
def test_positions_are_resized_as_in_the_reference(golden: Golden, side: int) -> None:
    arrays = golden("pos_embed")
    data = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "meta.note"}
    own = resize_pos_embed(data["pos_embed_37"], (side, side), prefix_tokens=1)
    torch.testing.assert_close(own, data[f"official_{side}"], rtol=0.0, atol=1e-6)
    assert (own[:, 1:] - data[f"timm_antialias_{side}"]).abs().max() > 1e-3


def test_positions_of_a_grid_that_is_not_square() -> None:
    by_row = torch.randn(7).repeat_interleave(7).view(1, 49, 1)
    square = resize_pos_embed(by_row, (5, 5), prefix_tokens=0).view(5, 5)
    wide = resize_pos_embed(by_row, (5, 9), prefix_tokens=0).view(5, 9)
    torch.testing.assert_close(wide, square[:, :1].expand(5, 9))
    tall = resize_pos_embed(by_row.view(7, 7).T.reshape(1, 49, 1), (9, 5), prefix_tokens=0)
    torch.testing.assert_close(tall.view(9, 5), square[:, 0].expand(9, 5))


def test_positions_of_the_same_grid_are_kept() -> None:
    positions = torch.randn(1, 1 + 16, 3)
    assert resize_pos_embed(positions, (4, 4), prefix_tokens=1) is positions
    oblong = torch.randn(1, 12, 3)
    assert resize_pos_embed(oblong, (3, 4), prefix_tokens=0) is oblong
    with pytest.raises(UserError, match="12 patches"):
        resize_pos_embed(oblong, (4, 4), prefix_tokens=0)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the file ran code",)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "cut.pth").write_bytes(b"\x80")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    (tmp_path / "weights.npz").write_bytes(b"")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    torch.save({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    for name, told in {
        "cut.safetensors": "cannot be read",
        "cut.pth": "cannot be read",
        "trap.pth": "cannot be read",
        "weights.npz": "give a .safetensors",
        "other.pt": "no named tensors",
        "absent.pth": "no such file",
        "nan.pt": "weight holds values that are not finite",
    }.items():
        with pytest.raises(UserError) as caught:
            read_weights(tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message
        assert told in message
        assert name in message
