"""A few test images with their masks and maps, for figures of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.data.dataset import ImageDataset

__all__ = ["ExampleImages"]

_DEFECTIVE = 2  # examples per category, besides a normal one
_SIDE = 256  # pixels; images and masks are reduced to it
_CATEGORIES = 8  # only the first categories have examples


class ExampleImages:
    """Collects a few test images with their masks and maps while a run is evaluated.

    Args:
        test: The test images.
    """

    def __init__(self, test: ImageDataset) -> None:
        self._test = test
        self._indices: list[int] = []
        self._maps: list[Tensor] = []
        self._ranges: list[tuple[float, float]] = []

    def add(self, indices: Tensor, maps: Tensor) -> None:
        """Choose examples from a category.

        Args:
            indices: ``[n]`` its images, as indices into the test images.
            maps: ``[n, R, R]`` their maps as evaluated, higher = more anomalous.
        """
        if len(self._ranges) == _CATEGORIES:
            return
        thinned = maps.flatten()[:: max(1, maps.numel() // 1_000_000)].float()
        low, high = thinned.quantile(torch.tensor([0.5, 0.99], device=maps.device)).tolist()
        self._ranges.append((low, high))
        labels = self._test.labels[indices]
        defective, normal = torch.nonzero(labels).flatten(), torch.nonzero(~labels).flatten()
        spread = torch.linspace(0, len(defective) - 1, min(_DEFECTIVE, len(defective)))
        for place in [*defective[spread.round().long()].tolist(), *normal[:1].tolist()]:
            self._indices.append(int(indices[place]))
            self._maps.append(maps[place].cpu())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the E examples as arrays without objects, for an npz file.

        Returns:
            ``images`` uint8 ``[E, H, W, 3]``, ``masks`` uint8 ``[E, H, W]`` (0 normal, 1 defective,
            255 unknown), ``maps`` float16 ``[E, R, R]``, ``scale`` float32 ``[2]`` (lowest and
            highest value to show), ``paths`` and ``categories`` ``[E]``. Empty without examples.
        """
        if not self._indices:
            return {}
        samples = [self._test.samples[index] for index in self._indices]
        images = torch.stack([self._test[index]["image"] for index in self._indices])
        images = self._test.preprocess.normalization.undo(images)
        pixels = (_reduced(images) * 255).round().clamp(0, 255).to(torch.uint8)
        masks = [self._test.mask(index) for index in self._indices]
        unknown = torch.full(self._test.preprocess.input_size, 255.0)
        truth = torch.stack([unknown if m is None else (m > 0).float() for m in masks])
        scale = [min(low for low, _ in self._ranges), max(high for _, high in self._ranges)]
        return {
            "images": pixels.permute(0, 2, 3, 1).numpy(),
            "masks": _reduced(truth[:, None])[:, 0].ceil().to(torch.uint8).numpy(),
            "maps": torch.stack(self._maps).to(torch.float16).numpy(),
            "scale": np.array(scale, dtype=np.float32),
            "paths": np.array([sample.path for sample in samples]),
            "categories": np.array([sample.category for sample in samples]),
        }


def _reduced(images: Tensor) -> Tensor:
    """Reduce ``[E, C, H, W]`` to at most `_SIDE` pixels a side."""
    height, width = images.shape[-2:]
    factor = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.adaptive_avg_pool2d(images, size)
