from __future__ import annotations

import numpy as np
import pytest

from meds_plugin.review.exchange.regions import Region, find_regions

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_cells_from_half_the_scale_on_make_boxes_from_most_to_least_suspicious() -> None:
    heat = np.zeros((4, 8), np.uint8)
    heat[0, 1:3] = 127
    heat[3, 0], heat[3, 7], heat[1:3, 4] = 128, 255, 200
    assert find_regions(heat, WHOLE) == [
        Region(0.875, 0.75, 0.125, 0.25, 1.0),
        Region(0.5, 0.25, 0.125, 0.5, 0.7843),
        Region(0.0, 0.75, 0.125, 0.25, 0.502),
    ]


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    heat = np.diag([130, 255, 140, 0]).astype(np.uint8)
    assert find_regions(heat, WHOLE) == [Region(0.0, 0.0, 0.75, 0.75, 1.0)]


def test_a_heatmap_covers_its_window() -> None:
    found = find_regions(np.full((3, 5), 255, np.uint8), (0.1, 0.2, 0.9, 0.6))
    assert found[0] == pytest.approx((0.1, 0.2, 0.8, 0.4, 1.0))
    assert found[0].pixels(1000, 50) == (100.0, 10.0, 800.0, 20.0)


def test_without_suspicious_cells_there_is_no_region() -> None:
    assert find_regions(np.full((3, 5), 127, np.uint8), WHOLE) == []
