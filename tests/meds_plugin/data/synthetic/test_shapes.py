from __future__ import annotations

import numpy as np
import pytest

from meds_plugin.data.synthetic.shapes import EVERYWHERE, Shape, blob, box, disc, smoothstep, stroke


def _at(shape: Shape, x: float, y: float) -> float:
    return float(shape.distance(np.array([[x]]), np.array([[y]]))[0, 0])


def test_distances_of_a_disc_and_a_box() -> None:
    assert _at(disc(0.5, 0.4, 0.1), 0.5, 0.7) == pytest.approx(0.2)
    assert _at(disc(0.5, 0.4, 0.1), 0.5, 0.4) == pytest.approx(-0.1)
    flat = box(0.5, 0.5, 0.4, 0.2)
    assert _at(flat, 0.5, 0.8) == pytest.approx(0.2)
    assert _at(flat, 1.0, 1.0) == pytest.approx(0.5, abs=1e-6)  # a 3-4-5 triangle off the corner
    upright = box(0.5, 0.5, 0.4, 0.2, angle=np.pi / 2)
    assert _at(upright, 0.5, 0.8) == pytest.approx(0.1)
    assert upright.bounds == pytest.approx((0.4, 0.3, 0.6, 0.7))
    assert _at(box(0.5, 0.5, 0.2, 0.2, corner=0.1), 0.6, 0.6) > 0.02


def test_distances_of_a_tapered_line() -> None:
    line = stroke(np.array([[0.2, 0.5], [0.8, 0.5]]), np.array([0.0, 0.2]))
    assert _at(line, 0.5, 0.6) == pytest.approx(0.05, abs=1e-6)
    assert _at(line, 0.2, 0.6) == pytest.approx(0.1, abs=1e-6)
    assert _at(line, 1.0, 0.5) == pytest.approx(0.1, abs=1e-6)


def test_shapes_can_be_grown_moved_cut_and_outlined() -> None:
    one = disc(0.5, 0.5, 0.1)
    assert _at(one.grown(0.05), 0.5, 0.7) == pytest.approx(0.05)
    assert _at(one.moved(0.1, -0.2), 0.6, 0.3) == pytest.approx(-0.1)
    assert one.moved(0.1, -0.2).bounds == pytest.approx((0.5, 0.2, 0.7, 0.4))
    assert _at(one.rim(0.02), 0.5, 0.5) == pytest.approx(0.09)
    assert _at(one.rim(0.02), 0.6, 0.5) == pytest.approx(-0.01)
    assert _at(one.within(disc(0.7, 0.5, 0.15)), 0.5, 0.5) > 0
    assert _at(one.within(EVERYWHERE), 0.5, 0.5) == pytest.approx(-0.1)


def test_a_blob_is_wavy_reproducible_and_inside_its_bounds() -> None:
    def blot(seed: int) -> Shape:
        return blob(0.5, 0.5, 0.1, np.random.default_rng(seed), stretch=1.4, angle=0.5)

    axis = (np.arange(200) + 0.5) / 200
    inside = blot(0).distance(axis[None, :], axis[:, None]) < 0
    np.testing.assert_array_equal(inside, blot(0).distance(axis[None, :], axis[:, None]) < 0)
    assert (inside != (blot(1).distance(axis[None, :], axis[:, None]) < 0)).any()
    assert 0.5 < inside.mean() / (np.pi * 0.1**2) < 2.0
    x0, y0, x1, y1 = blot(0).bounds
    rows, columns = np.nonzero(inside)
    assert x0 < axis[columns].min() < axis[columns].max() < x1
    assert y0 < axis[rows].min() < axis[rows].max() < y1


def test_smoothstep_eases_between_its_ends() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])
