"""Maps rendered at the size of the input images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.transforms import Preprocess
from meds_plugin.prediction.heatmap import at_source, colours, png


def ramp(side: int = 8) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.add.outer(10 * np.arange(side), np.arange(side)).astype(np.float32)


def test_a_map_is_stretched_over_the_whole_image() -> None:
    values = at_source(ramp(), (24, 40), Preprocess(16))
    assert values.shape == (24, 40)
    assert values.dtype == np.float32
    # Bilinear with pixel centres, as torch does without aligned corners.
    wanted = Image.fromarray(ramp()).resize((40, 24), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(values, np.asarray(wanted), atol=1e-4)


def test_with_a_crop_only_the_centre_is_seen() -> None:
    preprocess = Preprocess(32, 16)
    values = at_source(ramp(16), (64, 64), preprocess)
    seen = ~np.isnan(values)
    assert seen[16:48, 16:48].all()
    assert seen.sum() == 32 * 32
    np.testing.assert_allclose(values[16:48, 16:48], at_source(ramp(16), (32, 32), Preprocess(16)))


def test_a_mark_stays_where_it_is_in_the_image() -> None:
    preprocess = Preprocess((40, 80), (20, 60))
    image = np.zeros((100, 300, 3), np.uint8)
    image[40:60, 120:180] = 255
    seen = preprocess(Image.fromarray(image))[0].numpy()
    square = Image.fromarray(seen).resize((64, 64), Image.Resampling.BILINEAR)
    values = at_source(np.asarray(square), (100, 300), preprocess)
    rows, columns = np.where(values > values[50, 150] / 2)
    assert abs(rows.mean() - 49.5) < 1
    assert abs(columns.mean() - 149.5) < 1
    assert abs(np.ptp(rows) - 19) < 4
    assert abs(np.ptp(columns) - 59) < 8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (600, 2)])
def test_every_size_can_be_rendered(size: tuple[int, int]) -> None:
    values = at_source(ramp(), size, Preprocess(16))
    assert values.shape == size
    assert np.isfinite(values).all()
    assert colours(values, (0.0, 77.0)).shape == (*size, 3)
    assert at_source(ramp(1), size, Preprocess(16)).shape == size


def test_the_same_value_has_the_same_colour_whatever_else_an_image_shows() -> None:
    low, high = np.full((2, 2), 0.2, np.float32), np.full((2, 2), 0.2, np.float32)
    high[0, 0] = 9.0
    first, second = (colours(values, (0.0, 1.0)) for values in (low, high))
    assert (first[1, 1] == second[1, 1]).all()
    assert (colours(high, (0.0, 1.0))[0, 0] == colours(high, (-5.0, 0.1))[1, 1]).all()


def test_colours_grow_brighter_from_low_to_high_and_unseen_is_black() -> None:
    values = np.linspace(-0.5, 1.5, 64, dtype=np.float32)[None]
    light = colours(values, (0.0, 1.0)).astype(int) @ [299, 587, 114]
    inside = (values[0] >= 0) & (values[0] <= 1)
    assert (np.diff(light[0][inside]) > 0).all()
    assert (colours(np.full((1, 1), np.nan, np.float32), (0.0, 1.0)) == 0).all()


def test_the_image_shows_through_as_much_as_is_asked() -> None:
    values = np.zeros((2, 2), np.float32)
    image = np.full((2, 2, 3), 200, np.uint8)
    plain = colours(values, (0.0, 1.0)).astype(float)
    mixed = colours(values, (0.0, 1.0), image=image, overlay=0.25)
    np.testing.assert_allclose(mixed, 0.75 * plain + 50, atol=0.51)
    assert (colours(values, (0.0, 1.0), image=image, overlay=1.0) == 200).all()


def test_rendered_maps_are_png_files() -> None:
    mask = np.array([[True, False]])
    with Image.open(io.BytesIO(png(mask))) as file:
        assert (file.format, file.mode, file.size) == ("PNG", "L", (2, 1))
        assert np.asarray(file).tolist() == [[255, 0]]
    painted = colours(ramp(), (0.0, 77.0))
    with Image.open(io.BytesIO(png(painted))) as file:
        assert (np.asarray(file) == painted).all()
