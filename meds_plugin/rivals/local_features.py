"""Features of patches together with their neighbours, as PatchCore makes them."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["LocalFeatures", "combined", "neighbourhoods"]


class LocalFeatures(nn.Module):
    """The features of PatchCore, from any encoder's target layers and on its grid.

    Args:
        encoder: Its layers are taken as they come: a pyramid that balances its stages does so here.
        patch: Side of a neighbourhood in patches, odd.
        width: Channels per layer, and of the result.
        by_image: Whether batch norms take the statistics of each image alone, not the trained ones.
    """

    def __init__(
        self, encoder: FrozenEncoder, *, patch: int, width: int, by_image: bool = False
    ) -> None:
        super().__init__()
        self.by_image = by_image
        self.encoder = encoder
        self.patch = patch
        self.width = width

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return ``[B, width, h, w]`` features of normalised images ``[B, 3, H, W]``."""
        if self.by_image:
            with _own_statistics(self.encoder):
                return torch.cat([self._features(image[None]) for image in images])
        return self._features(images)

    def _features(self, images: Tensor) -> Tensor:
        local = partial(neighbourhoods, patch=self.patch, width=self.width)
        return combined(self.encoder.layer_maps(images, local=local), self.width)


@contextlib.contextmanager
def _own_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms normalise by the batch, and leave their trained statistics as they are."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks


def neighbourhoods(maps: Tensor, *, patch: int, width: int) -> Tensor:
    """Replace each patch by its neighbourhood, reduced to a number of channels.

    Args:
        maps: ``[B, C, h, w]``.
        patch: Side of a neighbourhood, odd; what lies outside counts as 0.
        width: Channels of the result.

    Returns:
        ``[B, width, h, w]``: means of adjacent values of channels times neighbours, the neighbours
        innermost, over windows that overlap where the numbers do not divide.

    Source:
        PatchCore (and SoftPatch, InReaCh and MuSc alike). The authors bring layers to one grid
        between the two steps; both are linear, so the order does not matter.
    """
    values = F.unfold(maps, patch, padding=patch // 2) if patch > 1 else maps.flatten(2)
    return _pooled(values, width).view(len(maps), width, *maps.shape[2:])


def combined(maps: Sequence[Tensor], width: int) -> Tensor:
    """Reduce the channels of all layers to one number.

    Args:
        maps: ``[B, C, h, w]`` of each layer; coarser ones are interpolated to the first one's grid.
        width: Channels of the result.

    Returns:
        ``[B, width, h, w]``.
    """
    size = maps[0].shape[2:]
    on_grid = [
        each
        if each.shape[2:] == size
        else F.interpolate(each, size=size, mode="bilinear", align_corners=False)
        for each in maps
    ]
    pooled = _pooled(torch.cat(on_grid, dim=1).flatten(2), width)
    return pooled.view(len(pooled), width, *size)


def _pooled(values: Tensor, width: int) -> Tensor:
    """Average adjacent channels of ``[B, n, P]``: ``[B, width, P]``."""
    if values.shape[1] == width:
        return values
    return F.adaptive_avg_pool1d(values.mT, width).mT.contiguous()
