from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from meds_plugin.metrics import UndefinedMetricError, average_precision
from meds_plugin.ranking import auprc, inspection_depth, ranking_metrics
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Callable


def _depth_by_review(scores: list[float], is_anomaly: list[int]) -> float:
    """Walk down the list, normal images first among equals."""
    ranked = sorted(zip(scores, is_anomaly, strict=True), key=lambda row: (-row[0], row[1]))
    last = max(place for place, row in enumerate(ranked, start=1) if row[1])
    return last / len(ranked)


@pytest.mark.parametrize("draw", range(20))
@pytest.mark.parametrize("levels", [1, 5, 1000])
def test_depth_equals_a_review(draw: int, levels: int) -> None:
    rng = numpy_rng(draw, "depth", levels)
    is_anomaly = [*rng.integers(0, 2, 19).tolist(), 1]
    scores = (rng.integers(-levels, levels, 20) * 3.5).tolist()
    expected = _depth_by_review(scores, is_anomaly)
    assert inspection_depth(torch.tensor(scores), torch.tensor(is_anomaly).bool()) == expected


def test_depth_of_known_lists() -> None:
    assert inspection_depth([9, 8, 7, 6, 5], [1, 1, 0, 0, 0]) == 0.4
    assert inspection_depth([9, 8, 7, 6, 5], [1, 0, 0, 1, 0]) == 0.8
    assert inspection_depth([9, 8, 7, 6, 5], [0, 0, 0, 0, 1]) == 1.0
    assert inspection_depth([9, 7, 7, 7, 5], [1, 1, 0, 0, 0]) == 0.8  # ties come first


def test_auprc_is_average_precision() -> None:
    scores, labels = [30.0, 20.0, 20.0, -1.0], [1, 0, 1, 0]
    assert auprc(scores, labels) == average_precision(scores, labels)
    assert auprc([3, 2, 1], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)


def test_all_contaminated() -> None:
    assert inspection_depth([1.0, 2.0], [1, 1]) == auprc([1.0, 2.0], [1, 1]) == 1.0


@pytest.mark.parametrize("function", [inspection_depth, auprc])
def test_wrong_input(function: Callable[[Any, Any], float]) -> None:
    with pytest.raises(UndefinedMetricError, match="no anomalous images"):
        function([1.0, 2.0], [0, 0])
    with pytest.raises(UndefinedMetricError, match="no anomalous images"):
        function([], [])
    with pytest.raises(ValueError, match="1 of 2 images"):
        function([1.0, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="shape"):
        function([1.0, 2.0], [0, 1, 1])


def test_a_ranking_is_scored_over_all_and_by_category() -> None:
    scores = torch.tensor([0.9, 0.8, 0.1, 0.2])
    found = ranking_metrics(scores, ["x", "x", "y", "y"], [False, True, False, None])
    assert found["auprc"] == 0.5
    assert found["inspection_depth"] == 0.5
    assert found["categories"]["x"] == {"auprc": 0.5, "inspection_depth": 1.0}
    assert found["categories"]["y"] == {"auprc": None, "inspection_depth": None}


def test_a_ranking_without_truth_has_no_metrics() -> None:
    assert ranking_metrics(torch.tensor([0.1]), ["x"], [None])["auprc"] is None
