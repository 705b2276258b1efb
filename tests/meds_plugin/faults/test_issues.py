from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from meds_plugin.faults.issues import find_issues
from meds_plugin.faults.measure import Look, measure_image
from tests.meds_plugin.faults.made_up import blurred, picture, scaled

CLEAN = [measure_image(picture(seed)) for seed in range(40)]


def _words(*images: Image.Image, mode: str = "RGB", looks: list[Look] = CLEAN) -> list[str]:
    """Return the issues of images among clean ones, which must have none."""
    added = [measure_image(image, mode) for image in images]
    found = find_issues([*looks, *added], ["nut"] * (len(looks) + len(added)))
    assert not any(found.images[: len(looks)])
    return [" ".join(words) for words in found.images[len(looks) :]]


def test_each_fault_is_named_and_nothing_else() -> None:
    image = picture(99)
    noise = np.random.default_rng(0).normal(120, 3, (96, 96, 1)).repeat(3, 2).astype(np.uint8)
    assert _words(
        image,
        blurred(image),
        scaled(image, 0.2),
        scaled(image, 3),
        Image.new("RGB", (96, 96), (90, 120, 70)),
        image.resize((48, 48)).resize((192, 192)),
        image.resize((120, 80)),
        image.convert("L").convert("RGB"),
    ) == [
        "",
        "blurry",
        "dark",
        "overexposed",
        "low_information",
        "blurry odd_size",
        "blurry odd_aspect",
        "odd_colour",
    ]
    assert "low_information" in _words(Image.fromarray(noise))[0]
    assert _words(image, mode="P") == ["odd_mode"]


def test_colour_among_grey_is_odd() -> None:
    grey = [measure_image(picture(seed).convert("L").convert("RGB")) for seed in range(40)]
    assert _words(picture(99), looks=grey) == ["odd_colour"]


def test_what_most_have_is_said_of_the_set() -> None:
    dark = [measure_image(scaled(picture(seed), 0.1)) for seed in range(30)]
    found = find_issues([*CLEAN, *dark], ["day"] * 40 + ["night"] * 30)
    assert found.sets == [("night", "dark")]
    assert not any(found.images)
    half = find_issues([*CLEAN[:30], *dark[:12]], ["both"] * 42)
    assert half.sets == []
    assert Counter(half.images) == {(): 30, ("dark",): 12}


def test_few_images_are_not_compared() -> None:
    some = [*CLEAN[:3], measure_image(blurred(picture(99))), measure_image(scaled(picture(98), 0))]
    assert find_issues(some, ["nut"] * 5).images == [(), (), (), (), ("dark",)]
    assert find_issues([], []) == ([], [])


def test_deep_files_are_dark_only_beside_others() -> None:
    deep = [look._replace(bits=16, brightness=2.0) for look in CLEAN]
    assert find_issues(deep, ["nut"] * 40) == ([()] * 40, [])


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_light_that_varies_is_no_issue(share: float) -> None:
    rng = np.random.default_rng(0)
    looks = [measure_image(scaled(picture(n), rng.uniform(0.5, 1.2))) for n in range(60)]
    sets = ["a" if n < 60 * share else "b" for n in range(60)]
    assert sum(map(bool, find_issues(looks, sets).images)) == 0
