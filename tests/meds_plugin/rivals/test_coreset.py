from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.rivals import coreset
from meds_plugin.rivals.coreset import greedy_coreset, mean_distances, random_projection
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.conftest import Arrays


@pytest.fixture
def arrays(golden: Callable[[str], Arrays]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(v) for name, v in golden("baselines/coreset").items()}


def slowly(points: Tensor, count: int, anchors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pick one point after the other, with exact distances."""
    anchors, picks = anchors.clone(), []
    for _ in range(count):
        picks.append(int(anchors.argmax()))
        distances = (points - points[picks[-1]]).norm(dim=1)
        anchors = torch.minimum(anchors, distances if weights is None else distances * weights)
    return torch.tensor(picks)


@pytest.mark.parametrize("candidates", [1, 7, 1024])
def test_the_authors_samplers_pick_the_same(
    monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Tensor], candidates: int
) -> None:
    monkeypatch.setattr(coreset, "_CANDIDATES", candidates)
    x = arrays["x"].float()
    for start, weights, expected in (
        ("approx_start", None, "approx_idx"),
        ("weighted_start", arrays["weight"].float(), "weighted_idx"),
    ):
        anchors = mean_distances(x, arrays[start].long())
        found = greedy_coreset(x, len(arrays[expected]), anchors, weights=weights)
        assert torch.equal(found, arrays[expected].long())
    exact = greedy_coreset(x, len(arrays["exact_idx"]), torch.cdist(x, x).norm(dim=1))
    assert torch.equal(exact, arrays["exact_idx"].long())
    projected = arrays["x2"].float() @ arrays["proj_w"].float().T
    anchors = mean_distances(projected, arrays["proj_start"].long())
    found = greedy_coreset(projected, len(arrays["proj_idx"]), anchors)
    assert torch.equal(found, arrays["proj_idx"].long())


def test_from_one_point_it_is_the_textbooks_rule(arrays: dict[str, Tensor]) -> None:
    x, first = arrays["x"].double(), int(arrays["single_start"])
    expected = arrays["single_idx"].long()
    found = greedy_coreset(x, len(expected) - 1, mean_distances(x, torch.tensor([first])))
    assert torch.equal(torch.cat([torch.tensor([first]), found]), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_picks_at_a_time_are_those_of_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    monkeypatch.setattr(coreset, "_CANDIDATES", 40)
    monkeypatch.setattr(coreset, "_TABLE_ELEMENTS", 500)
    # clusters, within which a pick changes whom to pick next
    points = (torch.randn(12, 1, 5) * 4 + torch.randn(12, 50, 5)).flatten(0, 1).double()
    weights = (torch.rand(600) > 0.2).double() if weighted else None
    anchors = mean_distances(points, torch.arange(10))
    found = greedy_coreset(points, 300, anchors, weights=weights)
    assert torch.equal(found, slowly(points, 300, anchors, weights))


def test_identical_points_end_it_early() -> None:
    points = torch.randn(3, 4).double().repeat(20, 1)
    anchors = mean_distances(points, torch.tensor([0]))
    found = greedy_coreset(points, 30, anchors)
    assert set((found % 3).tolist()) >= {1, 2}
    assert len(greedy_coreset(torch.zeros(9, 4), 5, torch.zeros(9))) == 0


def test_points_of_no_weight_are_not_picked_after_the_first() -> None:
    points = torch.randn(50, 4)
    weights = torch.ones(50).index_fill(0, torch.arange(0, 50, 2), 0.0)
    found = greedy_coreset(points, 25, mean_distances(points, torch.arange(5)), weights=weights)
    assert bool((found[1:] % 2 == 1).all())


def test_projections_are_drawn_by_the_generator_within_their_range() -> None:
    one, two = (random_projection(8, 25, torch_generator(seed, "p")) for seed in (0, 1))
    assert torch.equal(one, random_projection(8, 25, torch_generator(0, "p")))
    assert not torch.equal(one, two)
    assert one.abs().max() <= 1 / 5
    assert one.abs().max() > 0.15
