"""Small pictures of the training images, for the page."""

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

__all__ = ["Thumbnail", "side_for", "thumbnails"]

_SIDES = (320, 256, 192, 128, 96)  # pixels, the first that fits is taken
_BYTES_A_PIXEL = 0.18  # of a rough texture; smooth products take half of it
_BUDGET = 30e6  # bytes of all thumbnails together; the page is a third larger
_QUALITY = 70


class Thumbnail(NamedTuple):
    """A small WebP picture of the whole image, in its own aspect.

    Attributes:
        data: The file's bytes; none where the image cannot be read any more.
        width: Pixels.
        height: Pixels.
    """

    data: bytes
    width: int
    height: int


def side_for(count: int) -> int:
    """Return the longer side of the thumbnails for so many images: fewer may be larger."""
    fits = (side for side in _SIDES if count * side * side * _BYTES_A_PIXEL <= _BUDGET)
    return next(fits, _SIDES[-1])


def thumbnails(dataset: ImageDataset, *, progress: bool = False) -> list[Thumbnail]:
    """Return a thumbnail of every image, in order; none is larger than its image.

    The images are read once more, as the detector reads them, by a thread a core (at most 8).

    Args:
        dataset: The images. Files that cannot be read (any more) get an empty thumbnail.
        progress: Show a bar.
    """
    count = len(dataset)
    side = side_for(count)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda index: _thumbnail(dataset, index, side), range(count))
        return list(track(made, description="thumbnails", total=count, enabled=progress))


def _thumbnail(dataset: ImageDataset, index: int, side: int) -> Thumbnail:
    try:
        picture = dataset.rgb_image(index)
    except UserError:
        return Thumbnail(b"", 0, 0)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return Thumbnail(buffer.getvalue(), picture.width, picture.height)
