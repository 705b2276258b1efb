"""Reading and fitting weights: the reference's position rule, and files that are no weights."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch

from meds_plugin.encoders.weights import read_weights, resize_pos_embed, to_timm_names
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
    torch.save({"epoch": 3, "args": {}}, tmp_path / "other.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    torch.save({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    for name, told in {
        "cut.safetensors": "cannot be read",
        "cut.pth": "cannot be read",
        "trap.pth": "holds code, not only tensors",
        "module.pt": "holds code, not only tensors",
        "weights.npz": "give a file that ends in .safetensors",
        "other.pt": "no named tensors, only epoch, args;",
        "absent.pth": "no such file",
        "nan.pt": "weight holds values that are not finite",
    }.items():
        with pytest.raises(UserError) as caught:
            read_weights(tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message
        assert "\x1b" not in message
        assert told in message
        assert name in message


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("plain.PTH", lambda state: state),
        ("run.ckpt", lambda state: {"state_dict": state, "epoch": 3}),
        ("run.pth.tar", lambda state: {"model_state_dict": state, "optimizer": {}}),
        ("model.bin", lambda state: {"model": state}),
        ("ddp.pt", lambda state: {"model": {f"module.{k}": v for k, v in state.items()}}),
        (
            "dino.pth",
            lambda state: {
                "student": {f"backbone.{k}": v + 1 for k, v in state.items()},
                "teacher": {
                    **{f"module.backbone.{k}": v for k, v in state.items()},
                    "module.dino_head.weight": torch.ones(2),
                },
            },
        ),
        ("parts.pt", lambda state: {"teacher": {"backbone": state}}),
        ("with_more.pt", lambda state: {**state, "version": 2}),
    ],
)
def test_wrappings_of_trainers_are_taken_off(
    tmp_path: Path, name: str, wrap: Callable[[Any], Any]
) -> None:
    state = {"blocks.0.weight": torch.ones(2), "norm.bias": torch.zeros(1)}
    torch.save(wrap(state), tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("biased", [False, True])
def test_the_official_dinov3_has_its_names(biased: bool) -> None:
    variant = "_qkvb" if biased else ""
    model = timm.create_model(
        f"vit_small_patch16_dinov3{variant}", num_classes=0, img_size=32, depth=2
    )
    expected = model.state_dict()
    official = {"mask_token": torch.zeros(1), "rope_embed.periods": torch.ones(4)}
    for key, value in expected.items():
        name = key.replace("reg_token", "storage_tokens")
        for number in "12":
            name = name.replace(f"gamma_{number}", f"ls{number}.gamma")
        if not key.endswith(("q_bias", "v_bias")):
            official[name] = value
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        parts = [expected.get(f"{block}{kind}_bias", torch.zeros(384)) for kind in "qv"]
        official[f"{block}qkv.bias"] = torch.cat([parts[0], torch.zeros(384), parts[1]])
        official[f"{block}qkv.bias_mask"] = torch.ones(3 * 384)
    found = to_timm_names(official, expected)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    official["blocks.1.attn.qkv.bias"] = torch.ones(3 * 384)  # keys have none in timm
    assert "blocks.1.attn.qkv.bias" in to_timm_names(official, expected)
