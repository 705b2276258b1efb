"""From scores of patches to maps of pixels, as the rivals' authors make them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Resampling", "resized_maps"]

Resampling = Literal["bilinear", "aligned", "nearest"]

_REACH = 4.0  # standard deviations at which the Gaussian is cut off, as scipy does


def resized_maps(
    maps: Tensor,
    size: tuple[int, int],
    *,
    resampling: Resampling = "bilinear",
    sigma: float = 4.0,
) -> Tensor:
    """Resize maps to the images and smooth them.

    Args:
        maps: ``[n, h, w]``.
        size: (H, W) in pixels.
        resampling: ``bilinear``, ``aligned`` (bilinear between the corners) or ``nearest``.
        sigma: Standard deviation of the Gaussian in pixels; 0 does not smooth.

    Returns:
        ``[n, H, W]`` float32.

    Source:
        PatchCore, SoftPatch and FUN-AD smooth bilinear maps by 4 pixels, InReaCh repeated ones by
        13; MuSc aligns corners and smooths nothing. Borders repeat the edge, mirrored.
    """
    maps = maps[:, None].float()
    if resampling == "nearest":
        large = F.interpolate(maps, size=size, mode="nearest")
    else:
        aligned = resampling == "aligned"
        large = F.interpolate(maps, size=size, mode="bilinear", align_corners=aligned)
    return (_smoothed(large, sigma) if sigma > 0 else large)[:, 0]


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Smooth ``[n, 1, H, W]`` along both axes; products keep the digits that TF32 would drop."""
    down, across = (_gaussian(side, sigma).to(maps) for side in maps.shape[2:])
    return down @ maps @ across.T


def _gaussian(side: int, sigma: float) -> Tensor:
    """Return ``[side, side]`` float64 weights: of each place, in its smoothed neighbours."""
    reach = int(_REACH * sigma + 0.5)
    steps = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (steps / sigma).double().square()).exp()
    places = torch.arange(side)[:, None] + steps
    places = places.remainder(2 * side)  # the line and its mirror image repeat
    places = torch.minimum(places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
