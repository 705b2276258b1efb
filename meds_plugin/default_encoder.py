"""Memory features for detectors that have none: the package's own encoder."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.encoder import build_encoder

if TYPE_CHECKING:
    from meds_plugin.frozen_encoder import FrozenEncoder

__all__ = ["default_features"]

IMAGE_SIZE = 128


def default_features(images: Tensor) -> Tensor:
    """Return patch features of the embedded encoder.

    Args:
        images: ``[B, 3, H, W]``, ImageNet-normalised, any size; resized to 128 x 128.

    Returns:
        ``[B, 256, D]``, without gradient.
    """
    resized = F.interpolate(
        images.float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        return _encoder(images.device).features(resized)


@cache
def _encoder(device: torch.device) -> FrozenEncoder:
    encoder = build_encoder(model="embedded", image_size=IMAGE_SIZE, layers=(5,))
    return encoder.to(device)
