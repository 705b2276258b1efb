"""Regions of a stored heatmap: where an image is suspicious."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meds_plugin.data.samples import Pixels

__all__ = ["Region", "find_regions"]

# Half of the scale from the median of all values to their 99.9th percentile. On the magnetic tiles
# at noise 0.4, two thirds of such boxes lie on a defect, and one clean image in six has one.
_LEVEL = 128


class Region(NamedTuple):
    """A box around a connected region.

    Attributes:
        left: Its left edge, as a share of the image's width.
        top: Its upper edge, as a share of the image's height.
        width: As a share of the image's.
        height: Likewise.
        score: Its highest value on the scale of the run's heatmaps, in [0.5, 1].
    """

    left: float
    top: float
    width: float
    height: float
    score: float

    def pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height in pixels of an image of some size."""
        sides = (self.left * width, self.top * height, self.width * width, self.height * height)
        left, top, across, down = (round(side, 2) for side in sides)
        return left, top, across, down


def find_regions(heat: Pixels, window: tuple[float, float, float, float]) -> list[Region]:
    """Return the connected regions of a heatmap, from most to least suspicious.

    Cells of at least half the scale belong to a region; those that touch at a corner are connected.

    Args:
        heat: uint8 ``[h, w]`` (see `Heatmaps`).
        window: Left, top, right and bottom edge of the area that it covers, as shares of the image.
    """
    labels, count = ndimage.label(heat >= _LEVEL, structure=np.ones((3, 3)))
    peaks: NDArray[np.uint8] = ndimage.maximum(heat, labels, range(1, count + 1))
    rows = np.linspace(window[1], window[3], heat.shape[0] + 1)
    columns = np.linspace(window[0], window[2], heat.shape[1] + 1)
    found = []
    for (down, across), peak in zip(ndimage.find_objects(labels), peaks, strict=True):
        left, right = float(columns[across.start]), float(columns[across.stop])
        top, bottom = float(rows[down.start]), float(rows[down.stop])
        found.append(Region(left, top, right - left, bottom - top, round(float(peak) / 255, 4)))
    return sorted(found, key=lambda region: -region.score)
