from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from meds_plugin.memory import neighbors, patch_vectors
from meds_plugin.memory.neighbors import Backend, nearest_distances
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def brute_force(bank: Tensor, queries: Tensor, k: int) -> Tensor:
    """Return ``[Q, k]`` ascending distances in float64."""
    cosine = F.normalize(queries.double(), dim=-1) @ F.normalize(bank.double(), dim=-1).t()
    return (1 - cosine).clamp(min=0).sort(dim=1).values[:, :k].float()


def search(
    bank: Tensor, queries: Tensor, k: int, backend: Backend, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return ``[Q, k]`` ascending distances by the code under test."""
    stored, asked = PatchVectors.of(bank[None], dtype), PatchVectors.of(queries[None], dtype)
    return next(nearest_distances(stored, asked, k, backend=backend))


@pytest.mark.parametrize("backend", ["faiss", "torch", "auto"])
@pytest.mark.parametrize("k", [1, 7, 150, 300])
def test_both_backends_find_the_nearest(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, k: int
) -> None:
    monkeypatch.setattr(neighbors, "_QUERIES", 16)
    monkeypatch.setattr(neighbors, "_TABLE_ELEMENTS", 16 * 40)
    bank, queries = 3 * torch.randn(300, 8), torch.randn(41, 8)
    bank[50:60] = bank[10:20]
    queries[0] = bank[10]
    found = search(bank, queries, k, backend)
    assert found.shape == (41, k)
    torch.testing.assert_close(found, brute_force(bank, queries, k), atol=2e-6, rtol=0)


def test_auto_takes_torch_where_faiss_cannot_search() -> None:
    bank, queries = torch.randn(50, 16), torch.randn(5, 16)
    found = search(bank, queries, 3, "auto", torch.bfloat16)
    torch.testing.assert_close(found, brute_force(bank, queries, 3), atol=0.01, rtol=0)
    with pytest.raises(UserError, match="cannot search"):
        search(bank, queries, 3, "faiss", torch.bfloat16)
    with pytest.raises(UserError, match="backend 'annoy' cannot search"):
        search(bank, queries, 3, "annoy")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("images", [2, 5])
def test_an_image_can_be_left_out_of_its_own_search(backend: Backend, images: int) -> None:
    features = torch.randn(images, 6, 8)
    k = min(9, (images - 1) * 6)
    stored = PatchVectors.of(features)
    each = list(nearest_distances(stored, None, k, leave_self_out=True, backend=backend))
    assert len(each) == images
    for image, found in enumerate(each):
        others = torch.cat([features[:image], features[image + 1 :]]).flatten(0, 1)
        torch.testing.assert_close(
            found, brute_force(others, features[image], k), atol=2e-6, rtol=0
        )


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_a_search_may_fetch_its_vectors_in_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Backend, leave_self_out: bool
) -> None:
    features = torch.randn(7, 6, 8)
    options: dict[str, Any] = {"leave_self_out": leave_self_out, "backend": backend}
    whole = list(nearest_distances(PatchVectors.of(features), None, 9, **options))
    monkeypatch.setattr(patch_vectors, "_FETCHED_BYTES", 2 * 6 * 11 * 4)
    (tmp_path / "vectors").write_bytes(bytes(7 * 6 * 11 * 4))
    cpu = torch.device("cpu")
    stored = PatchVectors(7, 6, 8, device=cpu, file=tmp_path / "vectors")
    stored.put(range(7), features)
    found = nearest_distances(stored, None, 9, **options)
    torch.testing.assert_close(list(found), whole, atol=1e-6, rtol=0)


def test_faiss_searches_on_a_gpu_only_where_it_was_built_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored: Any = SimpleNamespace(device=torch.device("cuda"), data=torch.zeros(1))
    for gpus in (True, False):
        monkeypatch.setattr(neighbors, "_faiss_has_gpus", lambda gpus=gpus: gpus)
        assert neighbors._search_by("auto", stored) is neighbors._torch_search
        if gpus:
            assert neighbors._search_by("faiss", stored) is neighbors._faiss_gpu_search
        else:
            with pytest.raises(UserError, match="on a GPU only where it was built for one"):
                neighbors._search_by("faiss", stored)
