"""Renders anomaly maps at the size of the input images: colours on a fixed scale, and masks."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meds_plugin.data.samples import Pixels
    from meds_plugin.data.transforms import Preprocess

    Values = NDArray[np.float32]

__all__ = ["at_source", "colours", "png"]

# From low to high; brightness rises throughout, for colour-blind readers.
_STOPS = (
    (12, 10, 48),
    (52, 36, 130),
    (138, 38, 128),
    (214, 70, 78),
    (248, 150, 46),
    (255, 246, 176),
)
_ROWS = 512  # coloured at a time


def at_source(evaluated: Values, size: tuple[int, int], preprocess: Preprocess | None) -> Values:
    """Resize an evaluated map to the size of the image file.

    Args:
        evaluated: ``[R, R]`` of what the detector saw.
        size: Height and width of the image file.
        preprocess: How the image became the detector's input; ``None``: the map is of all of it.

    Returns:
        ``[H, W]``, bilinear; NaN outside the run's crop.
    """
    rows = _places(size[0], preprocess, axis=0, side=len(evaluated))
    columns = _places(size[1], preprocess, axis=1, side=evaluated.shape[1])
    tall = _between(evaluated, rows)
    wide = _between(tall.T, columns).T
    wide[~rows.inside] = np.nan
    wide[:, ~columns.inside] = np.nan
    return np.ascontiguousarray(wide)


def colours(
    values: Values,
    scale: tuple[float, float],
    *,
    image: Pixels | None = None,
    overlay: float = 0.0,
) -> Pixels:
    """Colour a map.

    Args:
        values: ``[H, W]``; NaN becomes black.
        scale: Values of the first and the last colour; values beyond are clipped.
        image: uint8 ``[H, W, 3]`` to paint over.
        overlay: Share of ``image`` in the result, in [0, 1].

    Returns:
        uint8 ``[H, W, 3]``.
    """
    low, high = scale
    painted = np.empty((*values.shape, 3), np.uint8)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        unseen = np.isnan(part)
        share = np.clip((np.where(unseen, low, part) - low) / (high - low), 0.0, 1.0)
        rows = _palette()[np.rint(share * 255).astype(np.uint8)]
        rows[unseen] = 0
        if image is not None:
            mixed = (1.0 - overlay) * rows + overlay * image[start : start + _ROWS]
            rows = np.rint(mixed).astype(np.uint8)
        painted[start : start + _ROWS] = rows
    return painted


def png(pixels: NDArray[Any]) -> bytes:
    """Return a PNG file of uint8 ``[H, W, 3]``, or of a mask, bool ``[H, W]``, as 0 and 255."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    out = io.BytesIO()
    Image.fromarray(pixels).save(
        out, format="PNG", compress_level=3
    )  # a third of the default's time
    return out.getvalue()


class _Places:
    """Where the rows (or columns) of an image file lie among those of a map."""

    def __init__(self, positions: NDArray[np.float64], side: int) -> None:
        # Of pixel centres: those up to half a pixel beyond the edge take its value.
        self.inside = (positions >= -0.5) & (positions <= side - 0.5)
        clamped = np.clip(positions, 0, side - 1)
        self.first = np.minimum(clamped.astype(np.int64), max(0, side - 2))
        self.second = np.minimum(self.first + 1, side - 1)
        self.share = (clamped - self.first).astype(np.float32)


def _places(length: int, preprocess: Preprocess | None, *, axis: int, side: int) -> _Places:
    seen = (np.arange(length) + 0.5) / length
    if preprocess is not None:
        resized = seen * preprocess.image_size[axis]
        seen = (resized - preprocess.offset[axis]) / preprocess.input_size[axis]
    return _Places(seen * side - 0.5, side)


def _between(values: Values, places: _Places) -> Values:
    """Interpolate along the first axis."""
    share = places.share[:, None]
    mixed: Values = values[places.first] * (1 - share)
    mixed += values[places.second] * share
    return mixed


@cache
def _palette() -> Pixels:
    """Return 256 colours, ``[256, 3]``."""
    stops = np.array(_STOPS, float)
    where = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(where, range(len(stops)), channel) for channel in stops.T]
    palette: Pixels = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return palette
