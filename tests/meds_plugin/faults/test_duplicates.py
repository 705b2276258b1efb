from __future__ import annotations

import time

import numpy as np
import pytest

from meds_plugin.faults.duplicates import near_duplicate_groups
from meds_plugin.faults.measure import Look, measure_image
from tests.meds_plugin.faults.made_up import again, blurred, picture

CLEAN = [measure_image(picture(seed)) for seed in range(60)]


def _groups(looks: list[Look], sets: list[str] | None = None) -> list[int]:
    return near_duplicate_groups(looks, sets or ["nut"] * len(looks))


def test_images_of_one_product_are_no_duplicates() -> None:
    assert _groups(CLEAN) == [*range(60)]
    assert _groups(CLEAN[:5]) == [*range(5)]


def test_copies_are_found_through_others() -> None:
    first = again(picture(7), 1)
    copies = [measure_image(image) for image in (first, again(first, 2), blurred(picture(9)))]
    assert _groups([*copies[:1], *CLEAN, *copies[1:]])[-2:] == [0, 9]
    assert _groups([*CLEAN, *copies]) == [*range(60), 7, 7, 9]


def test_only_images_of_the_same_set_are_compared() -> None:
    looks = [*CLEAN, *CLEAN[:2]]
    assert _groups(looks) == [*range(60), 0, 1]
    assert _groups(looks, ["a"] * 60 + ["b"] * 2) == [*range(62)]


def test_a_set_may_hold_several_products() -> None:
    # Those of the rarer product are much nearer to each other than usual.
    other = [measure_image(picture(seed, kind=1)) for seed in range(200, 250)]
    assert _groups([*CLEAN, *other]) == [*range(110)]
    copy = measure_image(again(picture(203, kind=1), 1))
    assert _groups([*CLEAN, *other, copy]) == [*range(110), 63]


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_equal_images_are_one_group(count: int) -> None:
    assert _groups(CLEAN[:1] * count) == [0] * count


def test_ten_thousand_images_take_seconds() -> None:
    rng = np.random.default_rng(0)
    waves = (rng.normal(0, 1, 255) + rng.normal(0, 1, (10_000, 255))).astype(np.float16)
    waves[5000] = waves[17] + np.float16(0.01)
    start = time.perf_counter()
    groups = _groups([CLEAN[0]._replace(waves=wave) for wave in waves])
    assert time.perf_counter() - start < 20
    assert groups[5000] == 17
    assert len(set(groups)) == 9999
