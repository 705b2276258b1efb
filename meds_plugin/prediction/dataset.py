"""Reads new images; one that cannot be used gives the reason in place of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from meds_plugin.data.decoding import unreadable, unusable
from meds_plugin.data.images import read_image
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.data.samples import Pixels
    from meds_plugin.data.transforms import Preprocess
    from meds_plugin.tiles import Tiling

__all__ = ["LoadedImage", "PredictionDataset"]


class LoadedImage(NamedTuple):
    """What came of reading a file.

    Attributes:
        place: Its index in the list of files.
        image: float32 ``[3, H, W]``, normalised; ``None`` where there is an error, or tiles are
            still to be cut.
        size: Height and width of the file's image.
        pixels: uint8 ``[H, W, 3]`` of the file, where they were asked for.
        error: Why it cannot be used, in one line.
    """

    place: int
    image: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    pixels: Pixels | None = None
    error: str | None = None


class PredictionDataset(Dataset[LoadedImage]):
    """Files in a fixed order.

    Args:
        files: The files.
        preprocess: From a decoded image to a tensor.
        max_pixels: Larger images cannot be used.
        with_pixels: Return the file's pixels, too.
        tiling: Return the pixels instead, of images that can be cut into such tiles.
    """

    def __init__(
        self,
        files: Sequence[Path],
        preprocess: Preprocess,
        *,
        max_pixels: int,
        with_pixels: bool = False,
        tiling: Tiling | None = None,
    ) -> None:
        self.files = list(files)
        self._preprocess = preprocess
        self._max_pixels = max_pixels
        self._with_pixels = with_pixels or tiling is not None
        self._tiling = tiling

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> LoadedImage:
        """Read a file."""
        file = self.files[index]
        try:
            value_range = self._preprocess.value_range
            image = read_image(file, max_pixels=self._max_pixels, value_range=value_range)
            size = (image.height, image.width)
            pixels = np.array(image) if self._with_pixels else None
            if self._tiling is not None:
                if not self._tiling.fits(*size):
                    height, width = self._tiling.size
                    reason = (
                        f"has {size[0]} x {size[1]} pixels (height, width), smaller than the tiles "
                        f"of {height} x {width} that the detector was trained on"
                    )
                    return LoadedImage(index, error=str(unusable(file, reason)))
                return LoadedImage(index, None, size, pixels)
            return LoadedImage(index, self._preprocess(image), size, pixels)
        except UserError as error:
            # The limit has another name in training.
            return LoadedImage(index, error=str(error).replace("data.max_pixels=", "max_pixels="))
        except Exception as error:
            return LoadedImage(index, error=str(unreadable(file, error)))
