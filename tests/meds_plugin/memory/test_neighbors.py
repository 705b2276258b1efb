from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
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
    from collections.abc import Callable
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


class FakeFaiss(ModuleType):
    """faiss as it would be on a GPU, searching with torch."""

    METRIC_INNER_PRODUCT = 0

    def __init__(self, gpus: int) -> None:
        super().__init__("faiss")
        self.gpus = gpus
        self.made = 0

    def get_num_gpus(self) -> int:
        return self.gpus

    def StandardGpuResources(self) -> object:  # noqa: N802
        self.made += 1
        return object()

    def knn_gpu(
        self, resources: object, left: Tensor, bank: Tensor, k: int, *, metric: int, device: Any
    ) -> tuple[Tensor, Tensor]:
        assert metric == self.METRIC_INNER_PRODUCT
        values, places = (left @ bank.t()).topk(k, dim=1)
        return values, places


@pytest.fixture
def fake_faiss(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeFaiss]:
    """Return a function that puts a fake in the place of faiss."""

    def put(gpus: int) -> FakeFaiss:
        fake = FakeFaiss(gpus)
        names = ("faiss.contrib", "faiss.contrib.torch_utils")
        for name, module in {"faiss": fake, **{each: ModuleType(each) for each in names}}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        return fake

    return put


def on_a_gpu(dtype: torch.dtype = torch.float32) -> Any:
    return SimpleNamespace(device=torch.device("cuda"), data=torch.zeros(1, dtype=dtype))


def test_auto_takes_faiss_on_a_gpu_where_it_was_built_for_one(
    fake_faiss: Callable[[int], FakeFaiss],
) -> None:
    stored = PatchVectors.of(torch.randn(1, 300, 8))
    queries = PatchVectors.of(torch.randn(1, 41, 8))
    left, bank = queries.mirrored(0), stored.data[0]
    for backend in ("auto", "faiss"):
        fake = fake_faiss(1)
        search = neighbors._search_by(backend, on_a_gpu(), 7)
        assert search is not neighbors._torch_search
        found = torch.cat([search(part, bank, 7) for part in left.split(16)])
        torch.testing.assert_close(found, neighbors._torch_search(left, bank, 7))
        assert fake.made == 1  # its scratch memory is allocated once a search


@pytest.mark.parametrize(
    ("gpus", "k", "dtype"), [(0, 7, "float32"), (1, 2049, "float32"), (1, 7, "bfloat16")]
)
def test_auto_takes_torch_for_what_faiss_cannot_search_on_a_gpu(
    fake_faiss: Callable[[int], FakeFaiss], gpus: int, k: int, dtype: str
) -> None:
    fake_faiss(gpus)
    stored = on_a_gpu(getattr(torch, dtype))
    assert neighbors._search_by("auto", stored, k) is neighbors._torch_search
    assert neighbors._search_by("torch", stored, k) is neighbors._torch_search
    with pytest.raises(UserError, match="only where it was built for one"):
        neighbors._search_by("faiss", stored, k)


def test_auto_takes_torch_on_a_gpu_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # importing it fails
    assert neighbors._search_by("auto", on_a_gpu(), 7) is neighbors._torch_search


def test_auto_does_not_ask_faiss_about_what_only_torch_can_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbors, "_faiss_has_gpus", lambda: pytest.fail("faiss was imported"))
    for stored, k in ((on_a_gpu(torch.bfloat16), 7), (on_a_gpu(), 2049)):
        assert neighbors._search_by("auto", stored, k) is neighbors._torch_search
