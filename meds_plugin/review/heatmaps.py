"""Anomaly maps of the training images in one byte per value, small enough to store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Heatmaps", "quantize_maps"]

_LOW, _HIGH = 0.5, 0.999  # quantiles of all values at the ends of the scale


@dataclass(frozen=True)
class Heatmaps:
    """Anomaly maps on one scale for the whole run.

    Attributes:
        values: uint8 ``[N, h, w]``, higher = more anomalous: 0 is ``low`` or less, 255 is ``high``
            or more.
        low: Map value at the lower end of the scale: the median of all.
        high: Map value at the upper end: the 99.9th percentile.
    """

    values: NDArray[np.uint8]
    low: float
    high: float


def quantize_maps(maps: Tensor) -> Heatmaps:
    """Convert maps ``[N, h, w]`` to bytes, all on one scale."""
    values = maps.numpy().astype(np.float32)
    low, high = (float(value) for value in np.quantile(values, (_LOW, _HIGH)))
    span = high - low or 1.0  # maps without any difference
    levels = np.rint(np.clip((values - low) / span, 0.0, 1.0) * 255)
    return Heatmaps(levels.astype(np.uint8), low, high)
