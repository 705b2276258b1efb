from __future__ import annotations

import json

import numpy as np
import pytest

from meds_plugin.metrics.contamination import (
    Contamination,
    contamination_report,
    estimate_contamination,
    pooled,
)


def made(images: int, share: float, *, apart: float = 8.0, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    dirty = round(images * share)
    clean = draw.gamma(9, 1.0, images - dirty)
    return np.concatenate([clean, 9 + 3 * draw.normal(apart, apart / 4, dirty)])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25])
def test_the_interval_holds_a_share_that_stands_apart(share: float) -> None:
    found = estimate_contamination(made(200, share))
    assert found.low is not None
    assert found.high is not None
    assert found.estimate is not None
    assert found.low <= share <= found.high
    assert found.low <= found.estimate <= found.high
    assert found.high - found.low < 0.5  # it says something
    assert found.reason is None


def test_scale_and_place_of_the_scores_do_not_matter() -> None:
    scores = made(100, 0.1)
    one, other = estimate_contamination(scores), estimate_contamination(1e-3 * scores - 5)
    assert one.low == pytest.approx(other.low)
    assert one.high == pytest.approx(other.high)
    assert one.probability == pytest.approx(other.probability)


def test_probabilities_rise_with_the_score_and_sum_up_to_the_estimate() -> None:
    scores = made(200, 0.2)
    found = estimate_contamination(scores)
    assert found.probability is not None
    assert found.estimate is not None
    ordered = found.probability[np.argsort(scores)]
    assert (np.diff(ordered) >= 0).all()
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    assert found.probability[-20:].min() > 0.9  # the contaminated ones
    assert found.probability[:160].mean() < 0.25
    assert found.probability.mean() == pytest.approx(found.estimate, abs=0.03)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", ["gamma", "lognormal"])
def test_skew_alone_is_no_contamination(shape: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.gamma(4, size=80) if shape == "gamma" else draw.lognormal(0, 0.4, 80)
    found = estimate_contamination(scores)
    assert found.estimate is None
    assert found.probability is None
    assert found.reason is not None
    assert "no group of scores" in found.reason


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (np.arange(19.0), "fewer than 20"),
        (np.repeat([1.0, 2.0], [30, 5]), "nearly the same"),
        (made(200, 0.45), "contaminated"),
    ],
)
def test_says_why_there_is_no_number(scores: np.ndarray, reason: str) -> None:
    found = estimate_contamination(scores)
    assert (found.estimate, found.low, found.high, found.probability) == (None,) * 4
    assert found.reason is not None
    assert reason in found.reason


def test_many_images_are_no_burden_and_give_a_narrower_interval() -> None:
    few, many = estimate_contamination(made(100, 0.1)), estimate_contamination(made(5000, 0.1))
    assert few.low is not None
    assert many.low is not None
    assert few.low < many.low < 0.1
    assert many.probability is not None
    assert many.probability.shape == (5000,)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate_contamination([1.0, score])


def test_the_whole_set_is_known_only_where_every_category_is() -> None:
    nut = Contamination(100, estimate=0.1, low=0.05, high=0.2)
    tile = Contamination(300, estimate=0.4, low=0.3, high=0.5)
    whole = pooled({"nut": nut, "tile": tile})
    assert whole.estimate == pytest.approx(0.325)
    assert whole.low == pytest.approx(0.2375)
    assert whole.high == pytest.approx(0.425)
    assert whole.images == 400
    lost = pooled({"nut": nut, "wood": Contamination(3, "few")})
    assert lost.estimate is None
    assert lost.reason == "unknown for 1 of 2 (wood)"


def test_a_report_is_json_and_keeps_the_order_of_the_images() -> None:
    scores = np.concatenate([made(60, 0.2), np.arange(5.0)])
    report, probability = contamination_report(scores, ["nut"] * 60 + ["tile"] * 5)
    assert set(report) == {"categories", "all"}
    assert set(json.loads(json.dumps(report))["categories"]["nut"]) == {
        "estimate",
        "low",
        "high",
        "level",
        "images",
        "reason",
    }
    assert report["categories"]["tile"]["estimate"] is None
    assert probability[60:] == [None] * 5
    assert min(p for p in probability[50:60] if p is not None) > 0.8


def test_views_are_compared_each_with_its_own() -> None:
    top, side = made(60, 0.2), 1000 + 50 * made(60, 0.2, seed=1)
    report, _ = contamination_report(
        np.concatenate([top, side]), ["nut"] * 120, ["nut/top"] * 60 + ["nut/side"] * 60
    )
    row = report["categories"]["nut"]
    assert row["low"] <= 0.2 <= row["high"]
