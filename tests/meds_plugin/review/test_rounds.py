from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.review.estimate import Draw
from meds_plugin.review.rounds import (
    Planned,
    Round,
    plan,
    random_draws,
    read_rounds,
    round_file,
    round_text,
)
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"{number}.png" for number in range(200)]
CHANCE = np.linspace(0.9, 0.0, 200)


def test_every_tenth_image_is_random_and_the_others_go_by_probability() -> None:
    images = plan(NAMES, CHANCE, least=0.0, rng=np.random.default_rng(0))
    assert sorted(image.path for image in images) == sorted(NAMES)
    assert [image.random for image in images[:20]] == 2 * [*9 * [False], True]
    chances = [image.probability for image in images if not image.random]
    assert chances == sorted(chances, reverse=True)
    assert np.mean([image.probability for image in images if image.random]) < 0.6


def test_below_the_least_probability_all_images_are_random() -> None:
    images = plan(NAMES, CHANCE, least=0.45, rng=np.random.default_rng(0))
    first = max(place for place, image in enumerate(images) if not image.random)
    assert images[first].probability >= 0.45
    rest = [image.probability for image in images[first + 1 :]]
    assert abs(np.corrcoef(rest, range(len(rest)))[0, 1]) < 0.3


def test_the_random_image_is_any_of_those_left() -> None:
    counts = dict.fromkeys(NAMES[9:29], 0)
    for seed in range(2000):
        images = plan(NAMES[:29], CHANCE[:29], least=0.0, rng=np.random.default_rng(seed))
        counts[images[9].path] += 1
    assert sum(counts.values()) == 2000
    assert min(counts.values()) > 60
    assert max(counts.values()) < 140


def test_draws_count_up_to_the_first_image_that_was_passed_over() -> None:
    images = [("b", 0.5, False), ("c", 0.25, True), ("d", 0.25, True), ("e", 0.0, True)]
    first = Round({"a": True}, [Planned(*image) for image in images])
    second = Round({"a": True, "b": True, "c": False, "e": True}, [Planned("d", 0.5, True)])
    decided = {**second.decided, "d": False}
    # e was decided before d; when d was, it had another place.
    assert random_draws([first, second], decided) == [
        Draw(3, 2, 0.5, False),
        Draw(1, 3, 0.5, False),
    ]
    assert random_draws([first], {"a": True}) == []
    assert random_draws([], {}) == []


def test_rounds_are_read_as_they_were_written(tmp_path: Path) -> None:
    categories = dict.fromkeys(HOSTILE, "wood") | {"x.png": "nut"}
    rounds = [
        Round({}, [Planned(name, 0.25, name == "x.png") for name in categories]),
        Round({"x.png": True, HOSTILE[0]: False}, [Planned(n, 0.5, True) for n in HOSTILE[1:]]),
    ]
    assert read_rounds(tmp_path, categories) == []
    for number, each in enumerate(rounds):
        round_file(tmp_path, number).write_bytes(round_text(each, categories).encode())
    assert (tmp_path / "review_order2.csv").is_file()
    assert read_rounds(tmp_path, categories) == rounds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,decision\na.png,\n", "damaged"),
        ("path,category,decision,probability,random\na.png,nut,,much,0\n", "damaged"),
        ("path,category,decision,probability,random\nb.png,nut,keep,,\n", "different images"),
        ("", "different images"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "review_order.csv").write_text(text)
    with pytest.raises(UserError, match=says) as refused:
        read_rounds(tmp_path, ["a.png"])
    assert "to start the review over" in str(refused.value)
