from __future__ import annotations

import numpy as np
from scipy import ndimage

from meds_plugin.data.synthetic.gear import TEETH, gear


def test_the_gear_has_its_teeth() -> None:
    canvas, _ = gear(128, np.random.default_rng(0))
    inside = canvas.solid.distance(canvas.x, canvas.y) < 0
    radius = np.hypot(canvas.x - 0.5, canvas.y - 0.5)
    _, teeth = ndimage.label(inside & (radius > 0.39))
    assert teeth == TEETH == len(canvas.parts)


def test_a_missing_tooth_takes_metal_away_down_to_the_root() -> None:
    canvas, _ = gear(128, np.random.default_rng(0))
    for tooth in canvas.parts:
        (rows, columns), cover = canvas.cover(tooth)
        points = cover > 0.9
        radius = np.hypot(canvas.axis[None, columns] - 0.5, canvas.axis[rows, None] - 0.5)
        assert 0.34 < radius[points].min() < 0.36
        assert radius[points].max() > 0.40
        assert 0.004 < points.sum() * canvas.pixel**2 < 0.015


def test_machining_marks_differ_from_piece_to_piece() -> None:
    one, two = (gear(64, np.random.default_rng(seed))[0].rgb for seed in (0, 1))
    assert 0.003 < np.abs(one - two).mean() < 0.08
