"""AUPIMO: how much of defects is found at thresholds that hardly ever alarm on normal images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.metrics.curves import UndefinedMetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["aupimo", "aupimo_of_parts"]


def aupimo(maps: Tensor, masks: Tensor, *, bounds: tuple[float, float] = (1e-5, 1e-4)) -> Tensor:
    """Return the overlap of each defective image, exactly: every value is a threshold.

    An image's overlap is the share of its defective pixels that lie above a threshold, averaged
    over the thresholds at which a share between the bounds of the normal images' pixels does, on a
    logarithmic scale. So a defective pixel counts ``log(U / z) / log(U / L)``, z being the share of
    the normal images' pixels that are as high, clamped to the bounds L and U.

    Args:
        maps: ``[N, H, W]`` anomaly maps, higher = more anomalous.
        masks: ``[N, H, W]`` bool, true = defective; images without are normal.
        bounds: L and U.

    Returns:
        ``[D]`` float64 in [0, 1] of the defective images in order, higher = better.

    Raises:
        UndefinedMetricError: Without normal or defective images.

    Source:
        Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed
        and Low Tolerance"; the bounds are theirs.
    """
    return aupimo_of_parts(lambda: [(maps, masks)], maps.numel(), bounds=bounds)


def aupimo_of_parts(
    parts: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    pixels: int,
    *,
    bounds: tuple[float, float] = (1e-5, 1e-4),
) -> Tensor:
    """Do as `aupimo` with maps of which only some are in memory.

    Args:
        parts: Returns maps ``[n, H, W]`` with their masks; the same each time.
        pixels: The number of pixels of all maps.
        bounds: See `aupimo`.

    Returns:
        See `aupimo`.

    Raises:
        UndefinedMetricError: See `aupimo`.
    """
    lower, upper = bounds
    count = defects = 0
    highest = torch.empty(0)
    for maps, masks in parts():
        defective = masks.flatten(1).any(1)
        defects += int(defective.sum())
        normal = torch.cat([highest.to(maps), maps[~defective].flatten()])
        count += len(normal) - len(highest)
        highest = normal.topk(min(len(normal), math.floor(upper * pixels) + 1)).values
    if not count or not defects:
        msg = f"there are no {'defective' if count else 'normal'} images"
        raise UndefinedMetricError(msg)
    # What lies lower counts nothing.
    highest = highest[: math.floor(upper * count) + 1].flip(0)
    overlaps = []
    for maps, masks in parts():
        for values, mask in zip(maps, masks, strict=True):
            if bool(mask.any()):
                above = len(highest) - torch.searchsorted(highest, values[mask].contiguous())
                share = (above.double() / count).clamp(lower, upper)
                overlaps.append((upper / share).log().mean() / math.log(upper / lower))
    return torch.stack(overlaps).clamp(max=1)
