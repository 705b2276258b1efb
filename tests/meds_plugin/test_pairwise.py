from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from meds_plugin import pairwise
from meds_plugin.pairwise import PatchVectors, scan, strip_width

if TYPE_CHECKING:
    from collections.abc import Iterator


class Table:
    """Returns all distances; the state is the columns seen so far."""

    def __init__(self, images: int, keeps: bool) -> None:
        self.outputs = images
        self.kept = images if keeps else None

    def merge(self, state: Tensor, distances: Tensor, first: int) -> Tensor:
        state = state.clone()
        state[first : first + len(distances)] = distances
        return state

    def finish(self, image: int, state: Tensor | None, distances: Tensor, first: int) -> Tensor:
        del image
        before = distances[:0] if state is None else state[:first]
        return torch.cat([before, distances]).float()


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
    asked: list[int] = []
    mirrored, blocks = PatchVectors.mirrored, PatchVectors.blocks

    def note_left(self: PatchVectors, image: int) -> Tensor:
        asked.append(image)
        return mirrored(self, image)

    def note_pairs(
        self: PatchVectors, left: Tensor, columns: range
    ) -> Iterator[tuple[slice, Tensor]]:
        for part, block in blocks(self, left, columns):
            pairs.extend((asked[-1], column) for column in range(part.start, part.stop))
            yield part, block

    monkeypatch.setattr(PatchVectors, "mirrored", note_left)
    monkeypatch.setattr(PatchVectors, "blocks", note_pairs)
    return pairs


def test_strip_width_follows_the_budget() -> None:
    row = 100
    assert strip_width(40, row, 10, 40 * row) == 40
    assert strip_width(40, row, 10, 39 * row) == 14
    assert strip_width(40, row, None, 39 * row) == 0
    assert strip_width(40, row, 16, 20 * row) == 2
    assert strip_width(40, row, 16, 19 * row) == 0
    assert strip_width(40, row, 16, 0) == 0


@pytest.mark.parametrize("block", [1, 60, 1 << 18])
@pytest.mark.parametrize("width", [11, 4, 1, 0])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_every_way_of_walking_gives_the_whole_table(
    monkeypatch: pytest.MonkeyPatch,
    compared: list[tuple[int, int]],
    block: int,
    width: int,
    leave_self_out: bool,
) -> None:
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
    monkeypatch.setattr(pairwise, "strip_width", lambda *_: width)
    features = torch.randn(11, 5, 6)
    expected = brute_force(features, features)
    expected[torch.arange(11), torch.arange(11)] = torch.inf if leave_self_out else 0.0
    found = scan(features, Table(11, keeps=True), leave_self_out=leave_self_out)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    if width:
        assert sorted(compared) == [(i, j) for i in range(11) for j in range(i + 1, 11)]
    else:
        assert sorted(compared) == [(i, j) for i in range(11) for j in range(11)]


def test_queries_may_have_another_number_of_patches() -> None:
    features, queries = torch.randn(4, 5, 6), torch.randn(3, 7, 6)
    found = scan(features, Table(4, keeps=False), queries=queries)
    torch.testing.assert_close(found, brute_force(features, queries), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_small_distances_survive_other_types(dtype: torch.dtype) -> None:
    base = torch.randn(1, 20, 64)
    features = (base + 0.05 * torch.randn(6, 20, 64)).to(torch.float64)
    found = scan(features, Table(6, keeps=False), dtype=dtype)
    expected = brute_force(features, features)
    assert 0 < expected[0, 1].max() < 0.01  # where cosines in bfloat16 are 0.004 apart
    tolerance = {torch.bfloat16: 5e-4, torch.float16: 6e-5, torch.float64: 1e-7}[dtype]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert found.dtype == torch.float32


def test_zero_vectors_are_far_from_everything() -> None:
    features = torch.randn(3, 4, 5)
    features[1, 2] = 0
    found = scan(features, Table(3, keeps=False))
    torch.testing.assert_close(found[:, 1, 2], torch.ones(3))
    torch.testing.assert_close(found[1, 1, [0, 1, 3]], torch.zeros(3))
    half = scan(features, Table(3, keeps=False), dtype=torch.bfloat16)
    torch.testing.assert_close(half[:, 1, 2], torch.ones(3), atol=0.004, rtol=0)


def test_progress_ends_at_its_total() -> None:
    for width_budget in (1 << 30, 0):
        seen: list[tuple[int, int]] = []
        scan(
            torch.randn(5, 2, 3),
            Table(5, keeps=False),
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
        PatchVectors(features)


def test_wrong_shapes_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        PatchVectors(torch.zeros(0, 4, 5))
    with pytest.raises(ValueError, match="non-empty"):
        PatchVectors(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="floating point"):
        PatchVectors(torch.ones(1, 4, 5), torch.int32)
    with pytest.raises(ValueError, match="queries have 6 channels"):
        scan(torch.randn(2, 4, 5), Table(2, keeps=False), queries=torch.randn(2, 4, 6))
