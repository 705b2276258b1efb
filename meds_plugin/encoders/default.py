"""Memory features for detectors that have none: the package's default encoder."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from meds_plugin.encoders.base import FrozenEncoder
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.normalization import Normalization

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["default_features", "encoder_of"]

IMAGE_SIZE = 224
# As in conf/encoder/efficientnet_lite0.yaml.
MODEL, LAYERS = "tf_efficientnet_lite0", (1, 2, 3, 4)
PYRAMID = {"stride": 16, "weights": (1.0, 1.0, 1.0, 0.5)}


class _DefaultFeatures:
    """Patch features of EfficientNet-Lite0, which is built at the first call."""

    normalization = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")

    def __call__(self, images: Tensor) -> Tensor:
        """Return patch features.

        Args:
            images: ``[B, 3, H, W]`` of any size, normalised by `normalization`; resized to
                224 x 224.

        Returns:
            ``[B, 196, D]``, without gradient.
        """
        resized = F.interpolate(
            images.float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True
        )
        with torch.no_grad():
            return _encoder(images.device).features(resized)


default_features = _DefaultFeatures()


def encoder_of(module: nn.Module) -> FrozenEncoder:
    """Return the encoder inside a module (or itself); the package's own, if there is none."""
    found = (part for part in module.modules() if isinstance(part, FrozenEncoder))
    return next(found, None) or _encoder(torch.device("cpu"))


@cache
def _encoder(device: torch.device) -> FrozenEncoder:
    encoder = build_encoder(model=MODEL, image_size=IMAGE_SIZE, layers=LAYERS, pyramid=PYRAMID)
    return encoder.to(device)
