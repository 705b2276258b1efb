"""Groups images by name: category, view or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Clusters", "first_of", "group_indices"]


def group_indices(groups: Sequence[Hashable]) -> dict[str, Tensor]:
    """Return the ascending indices of each group's members; groups are sorted by name."""
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(str(name), []).append(index)
    return {name: torch.tensor(members[name]) for name in sorted(members)}


def first_of(clusters: Tensor) -> list[int]:
    """Return the first member of each cluster, given the clusters' numbers ``[N]`` from 0 on."""
    first: dict[int, int] = {}
    for index, number in enumerate(clusters.tolist()):
        first.setdefault(number, index)
    return [first[number] for number in range(len(first))]


class Clusters:
    """Which of N images (or tiles of images) count as one.

    Args:
        names: The cluster of each.
        parts: The image of each tile, where they are tiles; those of an image share a cluster, or
            each is on its own.

    Attributes:
        number: ``[N]`` the same by numbers from 0 to U - 1, in the order of their first images.
        first: The first image of each.
        trivial: Whether each image is on its own.
    """

    def __init__(self, names: Sequence[Hashable], parts: Tensor | None = None) -> None:
        numbers: dict[Hashable, int] = {}
        self.number = torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
        self.first = first_of(self.number)
        self.trivial = len(self.first) == len(self.number)
        numbered = range(len(self.number)) if parts is None else parts.tolist()
        images = {image: place for place, image in enumerate(dict.fromkeys(numbered))}
        self._image = torch.tensor([images[image] for image in numbered])
        self._of_image = self.number[first_of(self._image)]

    def __len__(self) -> int:
        """Return the number of clusters, U."""
        return len(self.first)

    def scores(self, values: Tensor) -> Tensor:
        """Return the scores ``[U]`` of the clusters, given those of the images or tiles, ``[N]``.

        An image's is the highest of its tiles, a cluster's the mean of its images: one of several
        photographs of a thing is no better than another.
        """
        if self.trivial:
            return values
        lowest = values.new_full((len(self._of_image),), -torch.inf)
        images = lowest.scatter_reduce_(0, self._image.to(values.device), values, "amax")
        own = self._of_image.to(values.device)
        total = images.new_zeros(len(self)).index_add_(0, own, images)
        return total / own.bincount(minlength=len(self))

    def images(self, clusters: Tensor) -> Tensor:
        """Return the ascending images of some clusters."""
        return torch.nonzero(torch.isin(self.number, clusters)).flatten()

    def among(self, images: Tensor) -> Tensor | None:
        """Return the clusters of some images, numbered anew from 0 on; ``None`` where trivial."""
        if self.trivial:
            return None
        numbers: Tensor = self.number[images].unique(return_inverse=True)[1]
        return numbers
