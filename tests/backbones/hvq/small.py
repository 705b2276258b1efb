"""HVQ detectors on an encoder that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.hvq import HVQ
from meds_plugin.encoders.base import FrozenEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeEncoder", "encoded_images", "make"]

SMALL = {"embed_dim": 16, "codes": 24, "hidden": 32, "heads": 4, "depth": 2}


class FakeEncoder(FrozenEncoder):
    """Stands in for an encoder of any kind: its maps are fixed functions of the image."""

    def __init__(
        self,
        grid: tuple[int, int] = (4, 6),
        channels: tuple[int, ...] = (3, 5),
        *,
        additive: bool = False,
    ) -> None:
        super().__init__(nn.BatchNorm2d(1), (8 * grid[0], 8 * grid[1]), range(len(channels)))
        self.grid = grid
        self.channels = channels
        self.additive = additive
        self.train(mode=False)

    def layer_maps(
        self, images: Tensor, *, local: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        pooled = F.avg_pool2d(images, 8)
        return [
            torch.stack(
                [torch.sin((k + level) * pooled).sum(1) for k in range(1, count + 1)], dim=1
            )
            for level, count in enumerate(self.channels)
        ]

    def features(self, images: Tensor) -> Tensor:
        return torch.cat(self.layer_maps(images), dim=1).flatten(2).mT


def make(**arguments: Any) -> HVQ:
    """Return a small detector, without dropout unless asked for."""
    settings: dict[str, Any] = {**SMALL, "dropout": 0.0, **arguments}
    return HVQ(settings.pop("encoder", None) or FakeEncoder(), **settings)


def encoded_images(count: int = 4, seed: int = 1) -> Tensor:
    """Return what the fake encoder could make of some images."""
    return torch.randn(count, 8, 4, 6, generator=torch.Generator().manual_seed(seed))
