"""Memory features of some images, as often as they are asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from meds_plugin.distributed.ranks import chunked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from meds_plugin.encoding.encoded_images import EncodedImages

__all__ = ["EncodedFeatures"]


class EncodedFeatures:
    """Patch features of some images (see `rivals.base.PatchFeatures`), cached where they fit.

    Args:
        images: The images and what encodes them.
        indices: Which of them, at least one.
        device: Where they are encoded.
        layers: Channels of each layer in a feature, where these are to be told apart.
        progress: Name of a progress bar for the first pass; ``None`` shows none.
    """

    def __init__(
        self,
        images: EncodedImages,
        indices: Sequence[int],
        *,
        device: torch.device,
        layers: tuple[int, ...] = (),
        progress: str | None = None,
    ) -> None:
        self.images = images
        self.indices = list(indices)
        self.device = device
        self.layers = layers
        self._progress = progress
        self._grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[range, Tensor]]:
        """Yield places and features ``[b, P, D]`` of a batch at a time."""
        progress, self._progress = self._progress, None
        found = self.images.features(self.indices, device=self.device, progress=progress)
        for places, features, grid in found:
            self._grid = grid
            yield places, features.float()

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the patches."""
        if self._grid is None:
            one = self.images.features(self.indices[:1], device=self.device)
            self._grid = next(grid for _, _, grid in one)
        return self._grid

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images in pixels."""
        first = self.images.read(self.indices[:1])
        return first.shape[-2], first.shape[-1]

    def mean_image(self) -> Tensor:
        """Return the mean ``[3, H, W]`` of the images, in [0, 1], float64 on the CPU."""
        total = torch.zeros((), dtype=torch.float64)
        for some in chunked(self.indices, self.images.reader.batch_size):
            pixels = self.images.view.normalization.undo(self.images.read(some))
            total = total + pixels.double().sum(0)
        return total / len(self)
