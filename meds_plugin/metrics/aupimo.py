"""AUPIMO: how much of defects is found at thresholds that hardly ever alarm on normal images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from meds_plugin.metrics.curves import UndefinedMetricError

__all__ = ["aupimo"]


def aupimo(maps: Tensor, masks: Tensor, *, bounds: tuple[float, float] = (1e-5, 1e-4)) -> Tensor:
    """Return the overlap of each defective image, exactly: every value is a threshold.

    An image's overlap is the share of its defective pixels that lie above a threshold, averaged
    over the thresholds at which a share between the bounds of the normal images' pixels does, on a
    logarithmic scale. So a defective pixel counts ``log(U / z) / log(U / L)``, z being the share of
    the normal images' pixels that are as high, held within the bounds L and U.

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
    defective = masks.flatten(1).any(1)
    if bool(defective.all()) or not bool(defective.any()):
        which = "normal" if bool(defective.all()) else "defective"
        msg = f"there are no {which} images"
        raise UndefinedMetricError(msg)
    lower, upper = bounds
    normal = maps[~defective].flatten()
    # What lies lower counts nothing.
    highest = normal.topk(min(len(normal), math.floor(upper * len(normal)) + 1)).values.flip(0)
    overlaps = []
    for values, mask in zip(maps[defective], masks[defective], strict=True):
        above = len(highest) - torch.searchsorted(highest, values[mask].contiguous())
        share = (above.double() / len(normal)).clamp(lower, upper)
        overlaps.append((upper / share).log().mean() / math.log(upper / lower))
    return torch.stack(overlaps).clamp(max=1)
