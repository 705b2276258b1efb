from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from meds_plugin.faults.measure import measure_image
from tests.meds_plugin.faults.made_up import blurred, picture, scaled


def _flat(level: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, (level,) * 3)


def test_every_measure_goes_the_way_it_says() -> None:
    image = picture(0)
    look, soft = measure_image(image), measure_image(blurred(image))
    dark, bright = measure_image(scaled(image, 0.25)), measure_image(scaled(image, 4))
    assert (look.width, look.height, look.mode, look.bits) == (96, 96, "RGB", 8)
    assert soft.sharpness < look.sharpness - 2
    assert dark.brightness == pytest.approx(look.brightness - 2, abs=0.1)
    assert dark.sharpness == pytest.approx(look.sharpness, abs=0.4)
    assert look.clipped < 0.05 < 0.5 < bright.clipped
    assert measure_image(image.convert("L").convert("RGB")).colour == 0
    assert look.colour > 8


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (3, 3), (1000, 40)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    look = measure_image(_flat(7, size))
    assert look.brightness == 3
    assert look.contrast < -6
    assert np.isfinite([*look[4:9], *look.waves]).all()


def test_noise_is_no_contrast() -> None:
    noise = np.random.default_rng(0).normal(120, 4, (128, 128, 1)).repeat(3, 2)
    assert measure_image(Image.fromarray(noise.astype(np.uint8))).contrast < 1
    assert measure_image(picture(0)).contrast > 4


def test_the_size_of_a_file_matters_little() -> None:
    image, nearest = picture(0, side=256), Image.Resampling.NEAREST
    small, large = (measure_image(image.resize((side, side), nearest)) for side in (256, 1024))
    assert small.sharpness == pytest.approx(large.sharpness, abs=0.5)
    assert np.corrcoef(small.waves.astype(float), large.waves.astype(float))[0, 1] > 0.999


def test_waves_of_the_strongest_pattern_fit() -> None:
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    assert np.isfinite(measure_image(Image.fromarray(half)).waves).all()
