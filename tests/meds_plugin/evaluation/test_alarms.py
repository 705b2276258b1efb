"""Where alarms begin, by a rate of false alarms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.evaluation.alarms import (
    AlarmThresholds,
    CleanScores,
    check_false_alarm_rate,
    threshold_at,
)
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def made(count: int = 99, rate: float = 0.01) -> AlarmThresholds:
    low = tuple(float(i) for i in range(count))
    high = tuple(10.0 * value for value in low)
    scores = {"a": CleanScores(low, high), "b": CleanScores((500.0,), (5000.0,))}
    return AlarmThresholds.fitted(scores, rate, (0.0, 1.0))


@pytest.mark.parametrize(
    ("count", "rate", "place"),
    [(99, 0.01, 99), (100, 0.01, 100), (199, 0.01, 198), (9, 0.5, 5), (19, 0.05, 19), (5, 0.9, 1)],
)
def test_it_is_the_order_statistic_of_split_conformal_prediction(
    count: int, rate: float, place: int
) -> None:
    scores = [float(i) for i in range(1, count + 1)]
    assert threshold_at(scores, rate) == place


@pytest.mark.parametrize("rate", [0.3, 0.1, 0.05])
def test_a_further_image_lies_above_it_no_more_often_than_stated(rate: float) -> None:
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(4000):
        *clean, new = rng.exponential(size=31).tolist()
        above += new > threshold_at(sorted(clean), rate)
    # Four deviations of the count; by the rule it is between rate - 1/31 and rate.
    slack = 4 * np.sqrt(rate * (1 - rate) / 4000)
    assert rate - 1 / 31 - slack < above / 4000 < rate + slack


def test_too_few_images_give_the_largest_score_and_a_warning() -> None:
    few = made(20)
    assert few.of("a").image == 19.0
    line = few.shortfall("a")
    assert line is not None
    assert "needs 99 clean training images, but there are 20 of a" in line
    assert "about 0.048" in line
    assert few.shortfall("a", rate=0.04) is not None
    assert few.shortfall("a", rate=0.05) is None
    assert made(99).shortfall("a") is None
    assert "2 of all categories together" in (made(1).shortfall() or "")


def test_a_category_has_its_own_and_all_together_another() -> None:
    thresholds = made()
    assert (thresholds.of("a").image, thresholds.of("a").pixel) == (98.0, 980.0)
    assert (thresholds.of("b").image, thresholds.of("b").pixel) == (500.0, 5000.0)
    assert thresholds.of().image == 500.0
    assert thresholds.of(rate=0.02).image == 98.0


def test_the_file_holds_plain_numbers_and_gives_the_same(tmp_path: Path) -> None:
    thresholds = made(7, 0.2)
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps(thresholds.as_json()))
    assert AlarmThresholds.read(file) == thresholds
    content = json.loads(file.read_text())
    assert content["categories"]["a"] == {"image": 6.0, "pixel": 60.0, "images": 7}
    assert content["false_alarm_rate"] == 0.2


def test_who_edits_the_file_is_obeyed_until_a_rate_is_asked_for(tmp_path: Path) -> None:
    content = made(20).as_json()
    content["categories"]["a"]["image"] = 3.5
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps(content))
    thresholds = AlarmThresholds.read(file)
    assert (thresholds.of("a").image, thresholds.of("a").pixel) == (3.5, 190.0)
    assert thresholds.shortfall("a") is None
    assert thresholds.of("a", rate=0.01).image == 19.0
    assert thresholds.shortfall("a", rate=0.01) is not None


def test_a_category_without_scores_is_named() -> None:
    with pytest.raises(UserError, match=r"no scores of category nut, but of \['a', 'b'\]"):
        made().of("nut")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("false_alarm_rate", 0),
        ("false_alarm_rate", "much"),
        ("scale", [1, 0]),
        ("scale", [0]),
        ("scores", {}),
        ("scores", {"a": {"image": [2, 1], "pixel": [1, 2]}}),
        ("scores", {"a": {"image": [], "pixel": []}}),
        ("scores", {"a": {"image": [float("nan")], "pixel": [1]}}),
        ("scores", [1]),
        ("global", {"image": 1}),
        ("categories", {"a": {"image": 1, "pixel": 1}}),
    ],
)
def test_another_file_is_refused(tmp_path: Path, key: str, value: object) -> None:
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps({**made().as_json(), key: value}))
    with pytest.raises(UserError, match="is not a threshold file of a run"):
        AlarmThresholds.read(file)
    file.write_text("[")
    with pytest.raises(UserError, match="is not a threshold file of a run"):
        AlarmThresholds.read(file)


@pytest.mark.parametrize("rate", [0, 1, -0.1, "a", None, True, float("nan")])
def test_a_rate_is_a_share(rate: object) -> None:
    with pytest.raises(UserError, match="false_alarm_rate must be a share"):
        check_false_alarm_rate(rate)
