from __future__ import annotations

import numpy as np

from meds_plugin.data.synthetic.board import board


def test_the_layout_stays_while_parts_shift_a_little() -> None:
    one, pose = board(64, np.random.default_rng(0))
    two, other = board(64, np.random.default_rng(1))
    assert pose != other
    change = np.abs(one.rgb - two.rgb)
    assert 0.001 < change.mean() < 0.05


def test_below_each_part_lies_something_else() -> None:
    canvas, _ = board(128, np.random.default_rng(0))
    assert len(canvas.parts) == 5
    for part in canvas.parts:
        window, cover = canvas.cover(part)
        gap = np.abs(canvas.rgb[window] - canvas.bare[window]).mean(axis=2)
        assert (gap * cover).sum() / cover.sum() > 0.08


def test_solder_bridges_lie_on_pins() -> None:
    canvas, _ = board(128, np.random.default_rng(0))
    for x, y, _ in canvas.spots:
        column, row = np.searchsorted(canvas.axis, [x, y])
        assert canvas.rgb[row - 6 : row + 7, column - 6 : column + 7].max() > 0.6


def test_a_drawing_does_not_spoil_the_next() -> None:
    first, _ = board(64, np.random.default_rng(0))
    before = first.rgb.copy()
    first.rgb[:] = 0.0
    first.bare[:] = 0.0
    np.testing.assert_array_equal(board(64, np.random.default_rng(0))[0].rgb, before)
