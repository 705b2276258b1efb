"""Which set of codes an image gets: its category's, or that of the most similar images."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from backbones.hvq.ranks import sum_over_ranks
from backbones.shared.arguments import check_choice
from meds_plugin.utils.errors import UserError

__all__ = ["Router", "Routing"]

Routing = Literal["nearest", "label"]


class Router(nn.Module):
    """Picks a set for each image; in training, learns the mean features of each category.

    Args:
        classes: Number K of sets; 1: all images share it, whatever their categories.
        dim: Width C of the features.
        routing: What picks the set in evaluation mode. ``nearest``: the category whose mean is
            nearest, no label needed. ``label``: the given category; an image of none (-1) is
            routed by its features.

    Attributes:
        mean: ``[K, C]`` running means.
        count: ``[K]`` images in each mean; an image counts each time it is seen.

    Raises:
        UserError: If there is no such routing.

    Source:
        docs/method.md, section 6, HVQ; ``label`` is the reference's.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, classes: int, dim: int, *, routing: Routing = "nearest") -> None:
        super().__init__()
        check_choice("routing", routing, get_args(Routing))
        self.classes = classes
        self.routing = routing
        self.register_buffer("mean", torch.zeros(classes, dim))
        self.register_buffer("count", torch.zeros(classes))

    def forward(self, pooled: Tensor, category: Tensor | None) -> Tensor:
        """Return the set of each image, ``[B]``.

        Args:
            pooled: ``[B, C]`` features of each image, averaged over its locations.
            category: ``[B]`` index of each image's category, -1 where it has none.

        Raises:
            UserError: If categories are needed but missing, or there are more than sets.
        """
        if self.classes == 1:
            return torch.zeros(pooled.shape[0], dtype=torch.long, device=pooled.device)
        if category is None and (self.training or self.routing == "label"):
            msg = (
                f"backbone.detector.classes={self.classes} needs the category of each image: give "
                "it, or set classes=1, or routing=nearest where only test images lack it"
            )
            raise UserError(msg)
        if category is None or (self.routing == "nearest" and not self.training):
            return self._nearest(pooled)
        # While a graph is traced for export, there are no values to check.
        if not torch.compiler.is_compiling() and int(category.max()) >= self.classes:
            msg = (
                f"backbone.detector.classes={self.classes} is less than the number of categories: "
                f"one has the index {int(category.max())}; give their number, or 1"
            )
            raise UserError(msg)
        if self.training:
            self._learn(pooled, category)
        return torch.where(category >= 0, category, self._nearest(pooled))

    @torch.no_grad()
    def _learn(self, pooled: Tensor, category: Tensor) -> None:
        """Add images to the means, except those of no category."""
        known = (category >= 0).float()
        place = category.clamp_min(0)
        counts = torch.zeros_like(self.count).index_add_(0, place, known)
        sums = torch.zeros_like(self.mean).index_add_(0, place, known.unsqueeze(1) * pooled)
        counts, sums = sum_over_ranks(counts, sums)
        self.count += counts
        share = 1.0 / self.count.clamp_min(1.0)
        # mean + (sum - count * mean) / all: no term grows with the images seen
        self.mean += (sums - counts.unsqueeze(1) * self.mean) * share.unsqueeze(1)

    @torch.no_grad()
    def _nearest(self, pooled: Tensor) -> Tensor:
        """Return the category ``[B]`` with the nearest mean; 0 before any image was seen."""
        distance = (pooled.unsqueeze(1) - self.mean).square().sum(-1)
        return distance.masked_fill(self.count == 0, torch.inf).argmin(dim=1)
