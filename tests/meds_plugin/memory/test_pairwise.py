from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from meds_plugin.memory import pairwise, patch_vectors
from meds_plugin.memory.pairwise import (
    aggregate_distances,
    as_queries,
    default_budget,
    strip_width,
)
from meds_plugin.memory.patch_vectors import PatchVectors, blocks, vector_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Table:
    """Returns all distances; the state is the columns seen so far."""

    def __init__(self, images: int, by_strips: bool) -> None:
        self.outputs = images
        self.state_rows = images if by_strips else None

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:
        if state is None:
            state = distances.new_full((self.outputs, distances.shape[1]), torch.inf)
        state = state.clone()
        state[first : first + len(distances)] = distances
        return state

    def scores(self, image: int, state: Tensor) -> Tensor:
        return state.float()


def table(
    features: Tensor | PatchVectors,
    *,
    by_strips: bool = False,
    queries: Tensor | PatchVectors | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Tensor:
    """Return ``[N, Q, P']`` distances by the code under test."""
    stored = PatchVectors.of(features, dtype)
    asked = None if queries is None else as_queries(queries, stored)
    aggregation = Table(len(stored), by_strips)
    return aggregate_distances(stored, aggregation, queries=asked, **options)


def brute_force(features: Tensor, queries: Tensor) -> Tensor:
    """Return ``[N, Q, P']`` nearest distances in float64."""
    stored, asked = (
        x.double() / x.double().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        for x in (features, queries)
    )
    return (1 - torch.einsum("qpd,nzd->nqpz", asked, stored)).amin(3).clamp(min=0).float()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that fills with the pairs of images that a matrix product compares."""
    pairs: list[tuple[int, int]] = []
    asked: dict[int, int] = {}
    lefts: list[Tensor] = []  # so that no id is used twice
    mirrored = PatchVectors.mirrored

    def note_left(self: PatchVectors, image: int) -> Tensor:
        left = mirrored(self, image)
        asked[id(left)] = image
        lefts.append(left)
        return left

    def note_pairs(left: Tensor, right: Tensor, first: int) -> Iterator[tuple[slice, Tensor]]:
        for part, block in blocks(left, right, first):
            pairs.extend((asked[id(left)], column) for column in range(part.start, part.stop))
            yield part, block

    monkeypatch.setattr(PatchVectors, "mirrored", note_left)
    monkeypatch.setattr(pairwise, "blocks", note_pairs)
    return pairs


def test_strip_width_follows_the_budget() -> None:
    row = 100
    assert strip_width(40, row, 10, 40 * row) == 40
    assert strip_width(40, row, 10, 39 * row) == 14
    assert strip_width(40, row, None, 39 * row) == 0
    assert strip_width(40, row, 16, 20 * row) == 2
    assert strip_width(40, row, 16, 19 * row) == 0
    assert strip_width(40, row, 16, 0) == 0


def test_the_budget_grows_with_the_images_and_not_with_their_square() -> None:
    few, many = (default_budget(n, n * 100, state_rows=50) for n in (1000, 2000))
    assert many == 2 * few
    assert default_budget(40, 40 * 100, state_rows=30) == 40 * 40 * 100  # the whole table is less
    width = strip_width(2000, 2000 * 100, 50, many)
    assert width == 25
    assert width * 2 + 50 == many // (2000 * 100)


@pytest.mark.parametrize("block", [1, 60, 1 << 18])
@pytest.mark.parametrize("width", [11, 4, 1, 0])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_every_way_of_visiting_pairs_gives_the_whole_table(
    monkeypatch: pytest.MonkeyPatch,
    compared: list[tuple[int, int]],
    block: int,
    width: int,
    leave_self_out: bool,
) -> None:
    monkeypatch.setitem(patch_vectors._BLOCK_ELEMENTS, "cpu", block)
    monkeypatch.setattr(pairwise, "strip_width", lambda *_: width)
    features = torch.randn(11, 5, 6)
    expected = brute_force(features, features)
    expected[torch.arange(11), torch.arange(11)] = torch.inf if leave_self_out else 0.0
    found = table(features, by_strips=True, leave_self_out=leave_self_out)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    if width:
        assert sorted(compared) == [(i, j) for i in range(11) for j in range(i + 1, 11)]
    else:
        assert sorted(compared) == [(i, j) for i in range(11) for j in range(11)]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_vectors, "_FETCHED_BYTES", 3 * 5 * 9 * 4)  # three of the images below


def in_file(features: Tensor, path: Path, dtype: torch.dtype = torch.float32) -> PatchVectors:
    count, patches, channels = features.shape
    cpu = torch.device("cpu")
    size = vector_bytes(count, patches, channels, dtype=dtype, device=cpu)
    path.write_bytes(bytes(size))
    vectors = PatchVectors(count, patches, channels, dtype=dtype, device=cpu, file=path)
    for start in range(0, count, 4):
        part = range(start, min(start + 4, count))
        vectors.put(part, features[start : part.stop])
    return vectors


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("width", [11, 4, 0])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_vectors_in_a_file_give_what_those_in_memory_give(
    monkeypatch: pytest.MonkeyPatch,
    compared: list[tuple[int, int]],
    tmp_path: Path,
    width: int,
    leave_self_out: bool,
) -> None:
    monkeypatch.setattr(pairwise, "strip_width", lambda *_: width)
    features = torch.randn(11, 5, 6)
    expected = table(features, by_strips=True, leave_self_out=leave_self_out)
    before = sorted(compared)
    compared.clear()
    vectors = in_file(features, tmp_path / "vectors")
    assert [len(piece) for piece in vectors.pieces(range(11))] == [3, 3, 3, 2]
    found = table(vectors, by_strips=True, leave_self_out=leave_self_out)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert sorted(compared) == before  # no pair more


@pytest.mark.usefixtures("small_pieces")
def test_queries_may_meet_vectors_in_a_file(tmp_path: Path) -> None:
    features, queries = torch.randn(7, 5, 6), torch.randn(5, 4, 6)
    vectors = in_file(features, tmp_path / "vectors")
    expected = table(features, queries=queries)
    for budget in (None, 0):
        found = table(vectors, queries=queries, memory_budget=budget)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    share = PatchVectors.of(queries).take(torch.tensor([4, 1]))
    found = table(vectors, queries=share)
    torch.testing.assert_close(found, expected[:, [4, 1]], atol=1e-6, rtol=0)


def test_queries_may_have_another_number_of_patches() -> None:
    features, queries = torch.randn(4, 5, 6), torch.randn(3, 7, 6)
    found = table(features, queries=queries)
    torch.testing.assert_close(found, brute_force(features, queries), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_small_distances_survive_other_types(dtype: torch.dtype) -> None:
    base = torch.randn(1, 20, 64)
    features = (base + 0.05 * torch.randn(6, 20, 64)).to(torch.float64)
    found = table(features, dtype=dtype)
    expected = brute_force(features, features)
    assert 0 < expected[0, 1].max() < 0.01  # where cosines in bfloat16 are 0.004 apart
    tolerance = {torch.bfloat16: 5e-4, torch.float16: 6e-5, torch.float64: 1e-7}[dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert found.dtype == torch.float32


def test_zero_vectors_are_far_from_everything() -> None:
    features = torch.randn(3, 4, 5)
    features[1, 2] = 0
    found = table(features)
    torch.testing.assert_close(found[:, 1, 2], torch.ones(3))
    torch.testing.assert_close(found[1, 1, [0, 1, 3]], torch.zeros(3))
    half = table(features, dtype=torch.bfloat16)
    torch.testing.assert_close(half[:, 1, 2], torch.ones(3), atol=0.004, rtol=0)


def test_progress_ends_at_its_total() -> None:
    for width_budget in (1 << 30, 0):
        seen: list[tuple[int, int]] = []
        table(
            torch.randn(5, 2, 3),
            memory_budget=width_budget,
            progress=lambda done, total: seen.append((done, total)),  # noqa: B023
        )
        assert len(seen) == 5
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    features = torch.randn(3, 4, 5)
    features[2, 1, 0] = bad
    with pytest.raises(ValueError, match="image 2 has features that are not finite"):
        PatchVectors.of(features)


def test_wrong_shapes_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        PatchVectors.of(torch.zeros(0, 4, 5))
    with pytest.raises(ValueError, match="non-empty"):
        PatchVectors.of(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="floating point"):
        PatchVectors.of(torch.ones(1, 4, 5), torch.int32)
    with pytest.raises(ValueError, match="queries have 6 channels"):
        table(torch.randn(2, 4, 5), queries=torch.randn(2, 4, 6))
