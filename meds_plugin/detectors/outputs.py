"""Checks of a detector's maps and memory features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from meds_plugin.utils.errors import DetectorError

__all__ = ["check_finite", "check_maps", "grid_of", "kind_of"]


def check_maps(maps: Tensor, *, batch: int, name: str) -> None:
    """Refuse maps of a wrong shape.

    Args:
        maps: What a detector returned.
        batch: Number of images it was given.
        name: The method's name, for the message.

    Raises:
        DetectorError: Naming the method and the fault.
    """
    if maps.ndim != 3 or maps.shape[0] != batch or 0 in maps.shape:
        msg = (
            f"{name} must return anomaly maps of shape [B, h, w] or [B, 1, h, w]; for {batch} "
            f"images it returned {tuple(maps.shape)}{_advice(maps, batch)}"
        )
        raise DetectorError(msg)


def check_finite(values: Tensor, *, name: str) -> None:
    """Refuse infinite values and NaN; an accelerator has to be waited for.

    Args:
        values: What a detector returned.
        name: The method's name, for the message.

    Raises:
        DetectorError: Naming the method.
    """
    if not bool(torch.isfinite(values).all()):
        msg = (
            f"{name} returned values that are not finite: look for a logarithm, a root, or a "
            "division by something that can be 0"
        )
        raise DetectorError(msg)


def grid_of(features: Tensor, images: Tensor) -> tuple[int, int]:
    """Return the patch grid (h, w) of memory features.

    Args:
        features: ``[B, D, h, w]``, or ``[B, P, D]`` over a grid of the images' aspect ratio.
        images: ``[B, 3, H, W]`` they were made from.

    Raises:
        ValueError: If no grid of that aspect ratio has P patches.
    """
    if features.ndim == 4:
        return features.shape[-2], features.shape[-1]
    patches = features.shape[1] if features.ndim == 3 else 0
    height = round(math.sqrt(patches * images.shape[-2] / images.shape[-1]))
    if height == 0 or patches % height:
        msg = (
            "features must be [B, D, h, w], or [B, P, D] over a grid of the images' aspect ratio; "
            f"got {tuple(features.shape)} for images of {images.shape[-2]} x {images.shape[-1]}"
        )
        raise ValueError(msg)
    return height, patches // height


def _advice(maps: Tensor, batch: int) -> str:
    """Return how to fix maps of a wrong shape, if the shape suggests it."""
    if maps.ndim == 4 and maps.shape[0] == batch:
        return ": average over the channels, e.g. (reconstructed - images).square().mean(1)"
    if maps.ndim < 3 and maps.shape[:1] == (batch,):
        return ": a score for every place is needed, not one per image"
    if batch == 1 and maps.ndim == 2:
        return ": keep the batch, squeeze(1) instead of squeeze()"
    return ""


def kind_of(value: object) -> str:
    """Describe a value in messages: ``a dict``, ``a tensor (2, 3)``, ``None``."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"
