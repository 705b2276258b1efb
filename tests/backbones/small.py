"""Reconstruction detectors on tiny random encoders, and images for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from meds_plugin.encoders.build import build_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backbones.shared.reconstruction import ReconstructionDetector

__all__ = ["loader_of", "noisy_images", "on_stages", "small", "widen"]


def small(
    kind: Callable[..., ReconstructionDetector],
    *,
    image_size: Any = 56,
    layers: Sequence[int] = (1, 2, 3, 4),
    **arguments: Any,
) -> Any:
    """Return a detector of width 32 with four heads."""
    encoder = build_encoder(
        model="vit_base_patch14_reg4_dinov2",
        image_size=image_size,
        layers=layers,
        weights="random",
        model_args={"embed_dim": 32, "depth": 6, "num_heads": 4},
    )
    return kind(encoder, **arguments)


def on_stages(kind: Callable[..., nn.Module], *, image_size: Any = 64, **arguments: Any) -> Any:
    """Return a detector on three stages of a CNN, of 64 + 64 + 128 channels at a stride of 8."""
    encoder = build_encoder(
        model="resnet10t", image_size=image_size, layers=[0, 1, 2], weights="random"
    )
    return kind(encoder, **arguments)


def widen(model: ReconstructionDetector) -> None:
    """Make weights large enough for every part to matter."""
    for parameter in model.parameter_groups()[0]["params"]:
        nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        for block in getattr(model.encoder.model, "blocks", ()):
            block.ls1.gamma.fill_(0.7)
            block.ls2.gamma.fill_(0.5)


def noisy_images(count: int, *, size: int, defective: Sequence[int] = ()) -> Tensor:
    """Return noisy copies ``[count, 3, size, size]`` of one smooth image, some with a dark square.

    Args:
        count: Number of images.
        size: Side S in pixels.
        defective: Which have the square, in rows and columns S/4 to S/2.
    """
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(1, 3, 8, 8, generator=generator)
    noise = torch.randn(count, 3, size, size, generator=generator)
    images = F.interpolate(base, (size, size), mode="bicubic") + 0.1 * noise
    square = slice(size // 4, size // 2)
    for index in defective:
        images[index, :, square, square] = -2.0
    return images


def loader_of(images: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader of batches of four."""
    return DataLoader(TensorDataset(images), batch_size=4)
