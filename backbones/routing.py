"""Tells categories apart without a label: by the mean of their frozen features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.codebooks import sum_over_ranks

__all__ = ["ClassMeans"]


class ClassMeans(nn.Module):
    """Running means of pooled features by category.

    Args:
        classes: Number K of categories.
        dim: Width C of the features.

    Attributes:
        mean: ``[K, C]``.
        count: ``[K]`` images each mean was made from; one counts each time it is seen.

    Source:
        METHOD section 4, "Wrapping without an oracle", (c).
    """

    mean: Tensor
    count: Tensor

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, dim))
        self.register_buffer("count", torch.zeros(classes))

    @torch.no_grad()
    def learn(self, pooled: Tensor, category: Tensor) -> None:
        """Take images into the means.

        Args:
            pooled: ``[B, C]``.
            category: ``[B]`` index of each image's category; those below 0 are left out.
        """
        known = (category >= 0).float()
        place = category.clamp_min(0)
        counts = torch.zeros_like(self.count).index_add_(0, place, known)
        sums = torch.zeros_like(self.mean).index_add_(0, place, known.unsqueeze(1) * pooled)
        counts, sums = sum_over_ranks(counts, sums)
        self.count += counts
        share = 1.0 / self.count.clamp_min(1.0)
        # mean + (sum - count * mean) / all, which does not grow with the images seen
        self.mean += (sums - counts.unsqueeze(1) * self.mean) * share.unsqueeze(1)

    @torch.no_grad()
    def nearest(self, pooled: Tensor) -> Tensor:
        """Return the category ``[B]`` with the nearest mean; 0 before any image was seen.

        Args:
            pooled: ``[B, C]``.
        """
        distance = (pooled.unsqueeze(1) - self.mean).square().sum(-1)
        return distance.masked_fill(self.count == 0, torch.inf).argmin(dim=1)
