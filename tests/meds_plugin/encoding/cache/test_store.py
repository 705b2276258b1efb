from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from meds_plugin.encoding.cache import store as module
from meds_plugin.encoding.cache.folder import CacheFolder
from meds_plugin.encoding.cache.store import OutputStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("in_memory", [True, False])
def test_outputs_are_copied_once_into_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: bool
) -> None:
    made: list[Tensor] = []

    def out(like: Tensor, count: int) -> Tensor:
        made.append(torch.empty(count, *like.shape, dtype=like.dtype))
        return made[-1]

    monkeypatch.setattr(module, "_out", out)  # a CPU alone has no pinned memory
    values = torch.randn(6, 3, 4)
    folder = CacheFolder(tmp_path / "cache", limit_gb=1)
    store = OutputStore(
        6, limit=1e9 if in_memory else 0, dtype=torch.bfloat16, folder=folder, shared=not in_memory
    )
    store.place(values, lambda: "name")
    store.put(range(6), [f"key{index}" for index in range(6)], store.round(values))
    expected = values[[4, 0, 4]].bfloat16()
    found = store.get([4, 0, 4], pinned=True)
    assert found is not None
    assert found.data_ptr() == made[0].data_ptr()
    assert torch.equal(found, expected)
    plain = store.get([4, 0, 4])
    assert plain is not None
    assert torch.equal(plain, expected)
    assert len(made) == 1
    folder.close()
