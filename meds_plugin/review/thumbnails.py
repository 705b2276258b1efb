"""Thumbnails of the training images for the page."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from meds_plugin.data.dataset import ImageDataset

__all__ = ["Thumbnail", "make_thumbnails", "thumbnail_side"]

_SIDES = (320, 256, 192, 128)  # pixels; the first within the budget is used
_BYTES_PER_PIXEL = 0.18  # of a rough texture; smooth products take half as much
_BUDGET = 30e6  # bytes of all thumbnails together, unless the smallest take more
_QUALITY = 70


class Thumbnail(NamedTuple):
    """A small WebP copy of a whole image, with its aspect ratio.

    Attributes:
        data: The encoded file; empty if the image cannot be read.
        width: In pixels.
        height: In pixels.
    """

    data: bytes
    width: int
    height: int


def thumbnail_side(count: int) -> int:
    """Return the longer side in pixels of each of ``count`` thumbnails: the fewer, the larger."""
    fitting = (side for side in _SIDES if count * side * side * _BYTES_PER_PIXEL <= _BUDGET)
    return next(fitting, _SIDES[-1])


def make_thumbnails(dataset: ImageDataset, *, progress: bool = False) -> list[Thumbnail]:
    """Return a thumbnail of every image, in order, never larger than the image.

    Args:
        dataset: The images, decoded as for the detector. Files that cannot be read get an empty
            thumbnail.
        progress: Show a progress bar.
    """
    count = len(dataset)
    side = thumbnail_side(count)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda index: _thumbnail(dataset, index, side), range(count))
        return list(track(made, description="thumbnails", total=count, enabled=progress))


def _thumbnail(dataset: ImageDataset, index: int, side: int) -> Thumbnail:
    try:
        image = dataset.rgb_image(index)
    except UserError:
        return Thumbnail(b"", 0, 0)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return Thumbnail(buffer.getvalue(), image.width, image.height)
