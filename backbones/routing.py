"""Which set of codes an image belongs to: its category's, or that of the most alike images."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from backbones.codebooks import sum_over_ranks
from meds_plugin.utils.errors import UserError

__all__ = ["Router", "Routing"]

Routing = Literal["nearest", "label"]


class Router(nn.Module):
    """Picks a set for each image; in training, learns the mean features of each category.

    Args:
        classes: Number K of sets. 1: every image has it, and categories do not matter.
        dim: Width C of the features.
        routing: What picks the set in evaluation mode. ``nearest``: the category whose mean is
            nearest, no label needed. ``label``: the given category; an image of none (-1) goes by
            its features.

    Attributes:
        mean: ``[K, C]`` running means.
        count: ``[K]`` images each mean was made from; one counts each time it is seen.

    Raises:
        UserError: If there is no such routing.

    Source:
        METHOD section 4, "Wrapping without an oracle"; ``label`` is the reference's.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, classes: int, dim: int, *, routing: Routing = "nearest") -> None:
        super().__init__()
        if routing not in get_args(Routing):
            msg = f"backbone.detector.routing must be nearest or label, got {routing!r}"
            raise UserError(msg)
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
            UserError: If categories are needed and not there, or are more than there are sets.
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
            return self.nearest(pooled)
        # While a graph is recorded for export, there are no values to look at.
        if not torch.compiler.is_compiling() and int(category.max()) >= self.classes:
            msg = (
                f"backbone.detector.classes={self.classes} is less than the number of categories, "
                f"of which one has the index {int(category.max())}: give their number, or 1"
            )
            raise UserError(msg)
        if self.training:
            self.learn(pooled, category)
        return torch.where(category >= 0, category, self.nearest(pooled))

    @torch.no_grad()
    def learn(self, pooled: Tensor, category: Tensor) -> None:
        """Take images into the means; those of no category are left out."""
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
        """Return the category ``[B]`` with the nearest mean; 0 before any image was seen."""
        distance = (pooled.unsqueeze(1) - self.mean).square().sum(-1)
        return distance.masked_fill(self.count == 0, torch.inf).argmin(dim=1)
