from __future__ import annotations

import numpy as np
import pytest

from meds_plugin.review import likeness
from meds_plugin.review.likeness import Likeness, find_likeness
from meds_plugin.review.ranked_run import RankedImage, RankedRun


def compare(angles: list[float], *, left_out: int = 0, categories: str = "") -> Likeness:
    """Compare images whose both vectors point to these degrees, most suspicious first."""
    count = len(angles)
    images = [
        RankedImage(
            path=f"{place}",
            category=(categories or "a" * count)[place],
            score=-float(place),
            selected=place >= left_out,
            memory=None,
            distilled=None,
            probability=None,
            issues=(),
            duplicates=None,
        )
        for place in range(count)
    ]
    manifest = [image.path for image in images][::-1]
    turned = np.deg2rad(np.array(angles[::-1], np.float32))
    vectors = np.stack([np.cos(turned), np.sin(turned)], axis=1)
    ranked = RankedRun(images, manifest, {}, {})
    return find_likeness(ranked, {"image": vectors, "peak": vectors})


def test_the_nearest_is_a_selected_unsuspicious_image_of_the_same_category() -> None:
    # 1 is nearest to 0, but left out; 2 and 3 are among the more suspicious of those selected.
    angles = [10.0, 11.0, 12.0, 13.0, 80.0, 30.0]
    assert compare(angles, left_out=2).nearest == [5, 5, 5, 5, 5, 4]
    assert compare(angles, left_out=2, categories="aabbab").nearest == [4, 4, 3, 5, None, 3]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    angles = [float(angle) for angle in np.random.default_rng(0).uniform(0, 90, 40)]
    whole = compare(angles)
    monkeypatch.setattr(likeness, "_BLOCK", block)
    assert compare(angles) == whole
    for index, other in enumerate(whole.nearest):
        others = [place for place in range(20, 40) if place != index]
        assert other == min(others, key=lambda place: abs(angles[place] - angles[index]))


def test_like_defects_are_numbered_by_their_most_suspicious_image() -> None:
    found = compare([0.0, 90.0, 5.0, 180.0, 95.0, 0.0, 0.0], left_out=5)
    assert found.defects == [1, 2, 1, None, 2, None, None]  # 3 is like no other


def test_where_none_was_left_out_the_most_suspicious_tenth_is_grouped() -> None:
    assert compare([7.0] * 40).defects == [1] * 4 + [None] * 36


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_few_relations(count: int) -> None:
    found = compare([0.0] * count)
    assert found.nearest == {0: [], 1: [None], 2: [1, None]}[count]
    assert found.defects == [None] * count
