"""Measures what an image looks like, on a small grey copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Look", "measure_image"]

_SIDE = 256  # about what encoders see: finer blur makes no difference to them
_TINY, _WAVES = 32, 16
# The lowest frequencies of a side's discrete cosine transform, scaled to fit into float16.
_COSINES = 0.1 * np.cos(np.pi / _TINY * np.outer(np.arange(_WAVES), np.arange(_TINY) + 0.5))
_LEVELS = np.arange(256)
_WHITE = 250
_STRIP = 64  # rows at a time: three times faster than all, which do not fit into the cache


class Look(NamedTuple):
    """What an image looks like. Grey levels are in [0, 255].

    Attributes:
        width: In pixels.
        height: Likewise.
        mode: Pillow's mode of the file.
        bits: Bits per value of the file.
        sharpness: log2 of the Laplacian's mean square over the variance of the grey levels.
        brightness: log2 of 1 + the grey level that 5 % of the pixels exceed, in [0, 8].
        clipped: Share of the pixels that are white or nearly so.
        contrast: log2 of the standard deviation of a copy so small that it has no noise.
        colour: Mean difference of the largest and the smallest channel, in grey levels.
        waves: float16 ``[255]``: the lowest frequencies of the grey image by the discrete cosine
            transform, without the mean.
    """

    width: int
    height: int
    mode: str
    bits: int
    sharpness: float
    brightness: float
    clipped: float
    contrast: float
    colour: float
    waves: NDArray[np.float16]


def measure_image(image: Image.Image, mode: str = "RGB", bits: int = 8) -> Look:
    """Measure an image.

    Args:
        image: In RGB, of any size.
        mode: Pillow's mode of its file.
        bits: Bits per value of its file.
    """
    # Reduced, not resized: it must cost little beside decoding.
    grey = image.reduce(max(1, round(max(image.size) / _SIDE))).convert("L")
    shares = np.array(grey.histogram()) / (grey.width * grey.height)
    mean = shares @ _LEVELS
    variance = shares @ (_LEVELS - mean) ** 2
    tiny = np.asarray(grey.resize((_TINY, _TINY), Image.Resampling.BOX), np.float64)
    dots = np.asarray(image.resize((_TINY, _TINY), Image.Resampling.NEAREST))
    return Look(
        *image.size,
        mode,
        bits,
        sharpness=float(np.log2((_roughness(grey) + 0.01) / (variance + 0.01))),
        brightness=float(np.log2(1 + np.searchsorted(np.cumsum(shares), 0.95))),
        clipped=float(shares[_WHITE:].sum()),
        contrast=float(np.log2(tiny.std() + 0.01)),
        colour=float((dots.max(2) - dots.min(2)).mean()),
        waves=(_COSINES @ tiny @ _COSINES.T).ravel()[1:].astype(np.float16),
    )


def _roughness(grey: Image.Image) -> float:
    """Return the mean square of the Laplacian."""
    levels = np.asarray(grey)
    height, width = levels.shape[0] - 2, levels.shape[1] - 2
    if min(height, width) < 1:
        return 0.0
    total = 0.0
    for top in range(0, height, _STRIP):
        part = levels[top : top + _STRIP + 2].astype(np.float32)
        edges = part[2:, 1:-1] + part[:-2, 1:-1]
        edges += part[1:-1, 2:]
        edges += part[1:-1, :-2]
        edges -= 4 * part[1:-1, 1:-1]
        flat = edges.ravel()
        total += float(flat @ flat)
    return float(total / (height * width))
