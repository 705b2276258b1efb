from __future__ import annotations

import numpy as np
import pytest

from meds_plugin.data.synthetic.canvas import Canvas, Pose
from meds_plugin.data.synthetic.shapes import EVERYWHERE, box, disc


def test_painting_covers_the_shape_and_blends_its_edge() -> None:
    canvas = Canvas(64)
    canvas.paint(disc(0.5, 0.5, 0.2), (1.0, 0.5, 0.0))
    assert canvas.rgb[..., 0].mean() * len(canvas.axis) ** 2 * canvas.pixel**2 == pytest.approx(
        np.pi * 0.2**2, rel=0.01
    )
    assert canvas.rgb.dtype == np.float32
    np.testing.assert_allclose(canvas.rgb[..., 1], canvas.rgb[..., 0] / 2)
    assert ((canvas.rgb[..., 0] > 0.1) & (canvas.rgb[..., 0] < 0.9)).any()


def test_paint_takes_whole_images_as_colour_and_opacity() -> None:
    canvas = Canvas(32)
    ramp = np.broadcast_to(canvas.x[..., None], canvas.rgb.shape).astype(np.float32)
    half = np.full(ramp.shape[:2], 0.5, np.float32)
    canvas.paint(box(0.5, 0.5, 0.5, 0.5), ramp, opacity=half)
    middle = len(canvas.axis) // 2
    np.testing.assert_allclose(
        canvas.rgb[middle, middle - 3 : middle + 3], ramp[middle, middle - 3 : middle + 3] / 2
    )


def test_tint_multiplies() -> None:
    canvas = Canvas(32)
    canvas.rgb[:] = 0.8
    canvas.tint(EVERYWHERE, (0.5, 1.0, 0.25), opacity=0.5)
    np.testing.assert_allclose(canvas.rgb[5, 5], [0.6, 0.8, 0.5], rtol=1e-5)


def test_a_shape_beyond_the_canvas_does_no_harm() -> None:
    canvas = Canvas(32)
    canvas.paint(disc(5.0, 5.0, 0.2), (1.0, 1.0, 1.0))
    canvas.mark(disc(-5.0, 0.5, 0.2))
    assert not canvas.rgb.any()
    assert not canvas.mask.any()


def test_noise_is_smooth_centred_and_the_same_scene_at_every_size() -> None:
    canvas, large = Canvas(64), Canvas(128)
    values = canvas.noise(np.random.default_rng(0), 8)
    assert abs(float(values.mean())) < 0.3
    assert 0.4 < float(values.std()) < 1.2
    assert np.abs(np.diff(values)).mean() < 0.25 * values.std()
    finer = large.noise(np.random.default_rng(0), 8)
    assert (
        np.corrcoef(values.ravel(), finer[::2, ::2][: len(values), : len(values)].ravel())[0, 1]
        > 0.9
    )


@pytest.mark.parametrize(
    ("pose", "spot"),
    [
        (Pose(), (0.7, 0.5)),
        (Pose(dx=0.1, dy=-0.05), (0.8, 0.45)),
        (Pose(angle=np.pi / 6), (0.5 + 0.2 * np.cos(np.pi / 6), 0.6)),
        (Pose(scale=1.5), (0.8, 0.5)),
    ],
)
def test_the_pose_moves_image_and_mask_alike(pose: Pose, spot: tuple[float, float]) -> None:
    canvas = Canvas(100)
    canvas.paint(disc(0.7, 0.5, 0.05), (1.0, 1.0, 1.0))
    canvas.mark(disc(0.7, 0.5, 0.05))
    image, mask = canvas.photograph(pose, np.random.default_rng(0))
    for bright in (mask > 0, image.mean(axis=2) > 100):
        rows, columns = np.nonzero(bright)
        assert ((columns + 0.5).mean() / 100, (rows + 0.5).mean() / 100) == pytest.approx(
            spot, abs=0.006
        )


def test_the_camera_adds_noise_but_keeps_the_scene() -> None:
    canvas = Canvas(64)
    canvas.rgb[:] = 0.5
    one, mask = canvas.photograph(Pose(), np.random.default_rng(0))
    two, _ = canvas.photograph(Pose(), np.random.default_rng(1))
    assert not mask.any()
    assert (one != two).mean() > 0.5
    assert 100 < one.mean() < 150
    assert 0.5 < np.diff(one.astype(float), axis=1).std() / np.sqrt(2) < 4.0


def test_a_hair_still_leaves_a_mask() -> None:
    canvas = Canvas(32)
    canvas.mark(box(0.5, 0.5, 0.5, 0.002))
    _, mask = canvas.photograph(Pose(), np.random.default_rng(0))
    assert mask.any()


def test_numbers_are_printed_around_their_place() -> None:
    canvas = Canvas(128)
    canvas.print_number("80", 0.5, 0.4, 0.1, (1.0, 1.0, 1.0))
    rows, columns = np.nonzero(canvas.rgb[..., 0] > 0.5)
    assert canvas.axis[rows].mean() == pytest.approx(0.4, abs=0.005)
    assert canvas.axis[columns].mean() == pytest.approx(0.5, abs=0.02)
