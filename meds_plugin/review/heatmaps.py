"""The detector's maps of the training images, small enough to keep: one byte a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Heatmaps", "on_one_scale"]

_FAINT, _STRONG = 0.5, 0.999  # shares of all values that lie below the ends of the scale


@dataclass(frozen=True)
class Heatmaps:
    """Maps on one scale for the whole run.

    Attributes:
        values: uint8 ``[N, h, w]``, higher = more anomalous; 0 is ``low`` or less, 255 ``high`` or
            more.
        low: The detector's value at the lower end of the scale: the median of all.
        high: Its value at the upper end; one value in a thousand is above it.
    """

    values: NDArray[np.uint8]
    low: float
    high: float


def on_one_scale(maps: Tensor) -> Heatmaps:
    """Bring maps ``[N, h, w]`` to bytes, by one scale for all of them."""
    values = maps.numpy().astype(np.float32)
    low, high = (float(value) for value in np.quantile(values, (_FAINT, _STRONG)))
    span = high - low or 1.0  # a detector that tells nothing apart
    levels = np.rint(np.clip((values - low) / span, 0.0, 1.0) * 255)
    return Heatmaps(levels.astype(np.uint8), low, high)
