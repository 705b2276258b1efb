from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample, Variation
from meds_plugin.data.transforms import Preprocess
from meds_plugin.review.thumbnails import make_thumbnails, thumbnail_side

if TYPE_CHECKING:
    from pathlib import Path


def half(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image that is dark on the left and light on the right."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[:, width // 2 :] = 220
    return pixels


def test_shows_the_whole_image_with_its_aspect_ratio_as_the_detector_reads_it(
    tmp_path: Path,
) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(half(300, 600)).save(turned, exif=exif)
    small = tmp_path / "small.png"
    Image.fromarray(half(20, 40)).save(small)
    (tmp_path / "cut.png").write_bytes(small.read_bytes()[:60])
    samples = [
        Sample("turned", "nut", None, turned),
        Sample("small", "nut", None, small),
        Sample("cut", "nut", None, tmp_path / "cut.png"),
        Sample("gone", "nut", None, tmp_path / "gone.png"),
        Sample("pixels", "nut", None, half(64, 64)),
        Sample("pixels#2", "nut", None, half(64, 64), variation=Variation(turn=180.0, scale=1.0)),
    ]
    found = make_thumbnails(ImageDataset(samples, Preprocess(64, 32)))
    assert [each[1:] for each in found] == [
        (320, 160),
        (40, 20),
        (0, 0),
        (0, 0),
        (64, 64),
        (64, 64),
    ]
    assert [bool(each.data) for each in found] == [True, True, False, False, True, True]
    light_on_the_right = []
    for each in (found[0], found[1], found[4], found[5]):
        pixels = np.asarray(Image.open(io.BytesIO(each.data)).convert("L"), float)
        assert pixels.shape == (each.height, each.width)
        left, right = np.array_split(pixels, 2, axis=1)
        light_on_the_right.append(right.mean() > left.mean())
    assert light_on_the_right == [False, True, True, False]


def test_many_images_get_smaller_ones() -> None:
    sides = [thumbnail_side(count) for count in (1, 300, 3000, 10_000, 10**6)]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == 320
    assert sides[3] == sides[-1] == 128
