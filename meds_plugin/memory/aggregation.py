"""What becomes of the distances from one image's patches to all stored images.

Each class is a `meds_plugin.memory.pairwise.Reducer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.memory.pairwise import bits
from meds_plugin.memory.subsampling import memory_size, on_device, survival
from meds_plugin.selection import group_indices

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["MemoryMinima", "OrderedDistances", "StratifiedDistances"]


class MemoryMinima:
    """Mean over given memories of the smallest distance to an image they hold.

    Args:
        members: Ascending indices of each memory's images, without repeats.
        decimals: Digits that cosines are rounded to; ``None`` for none. Rounding keeps the order,
            so it may follow the minimum.
    """

    outputs = 1

    def __init__(self, members: Sequence[Tensor], decimals: int | None) -> None:
        self.members = members
        self.decimals = decimals
        self.kept = len(members)
        self._columns: tuple[tuple[int, int], list[Tensor]] = ((0, 0), [])

    def merge(self, state: Tensor, distances: Tensor, first: int) -> Tensor:
        """Return each memory's minimum so far."""
        return torch.minimum(state, self._minima(distances, first))

    def finish(self, image: int, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return ``[1, P]`` means."""
        minima = self._minima(distances, first)
        if state is not None:
            minima = torch.minimum(minima, state)
        minima = minima.float()
        if self.decimals is not None:
            minima = 1.0 - torch.round(1.0 - minima, decimals=self.decimals)
        return minima.mean(0, keepdim=True)

    def _minima(self, distances: Tensor, first: int) -> Tensor:
        """Return ``[memories, P]`` minima over some columns, infinite where a memory has none."""
        found = distances.new_full((self.kept, distances.shape[1]), torch.inf)
        for row, columns in zip(found, self._within(first, len(distances)), strict=True):
            if len(columns) > 0:
                torch.amin(bits(distances)[columns], 0, out=bits(row))
        return found

    def _within(self, first: int, count: int) -> list[Tensor]:
        """Return each memory's images among some columns, counted from the first of these."""
        if self._columns[0] != (first, count):
            inside = [m[(m >= first) & (m < first + count)] - first for m in self.members]
            self._columns = ((first, count), inside)
        return self._columns[1]


class OrderedDistances:
    """Weighted sums of the sorted distances: expectations over memories of like images.

    Args:
        weights: ``[R, K]`` weights of the K smallest distances, from `draws.on_device`.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.outputs, self.kept = weights.shape

    def merge(self, state: Tensor, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return the K smallest distances so far."""
        return self._smallest(torch.cat([state, distances]))

    def finish(self, image: int, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return ``[R, P]`` expectations."""
        seen = distances if state is None else torch.cat([state, distances])
        return (self.weights @ self._smallest(seen).to(self.weights.dtype)).float()

    def _smallest(self, distances: Tensor) -> Tensor:
        """Return the K smallest, ascending; by their bits, which sort faster."""
        keys = bits(distances)
        if 2 * self.kept < len(keys):
            smallest = keys.topk(self.kept, dim=0, largest=False).values
        else:
            smallest = keys.sort(dim=0).values[: self.kept]
        return smallest.view(distances.dtype)


class StratifiedDistances:
    """Expectations over memories that draw from every stratum separately.

    The chance that a memory holds none of the k nearest images is the product of the strata's
    chances; it depends on whose images those are, so all columns have to be seen at once.

    Args:
        strata: A label an image.
        ratios: R shares of each stratum's images, in (0, 1].
        replacement: Whether an image may be drawn several times.
        leave_self_out: Whether an image (at infinite distance) is missing from its stratum.
        device: Where the features are.
    """

    kept = None

    def __init__(
        self,
        strata: Sequence[Hashable],
        ratios: Sequence[float],
        *,
        replacement: bool,
        leave_self_out: bool,
        device: torch.device,
    ) -> None:
        self.outputs = len(ratios)
        self.replacement = replacement
        self.leave_self_out = leave_self_out
        groups = list(group_indices(strata).values())
        self.labels = torch.empty(len(strata), dtype=torch.long, device=device)
        for label, members in enumerate(groups):
            self.labels[members.to(device)] = label
        self.populations = [len(members) for members in groups]
        self.sizes = [[memory_size(n, ratio) for n in self.populations] for ratio in ratios]

    def merge(self, state: Tensor, distances: Tensor, first: int) -> Tensor:
        """Do nothing: never called, for all columns come at once."""
        raise NotImplementedError

    def finish(self, image: int, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return ``[R, P]`` expectations."""
        ordered, ranks = distances.float().sort(dim=0)
        if self.leave_self_out:  # the image itself, infinitely far, comes last
            ordered, ranks = ordered[:-1], ranks[:-1]
        labels = self.labels[ranks]
        one = on_device(torch.ones(1), ordered.device)
        missed = one.expand(self.outputs, *ordered.shape).clone()
        for label, population in enumerate(self.populations):
            left_out = self.leave_self_out and label == int(self.labels[image])
            met = (labels == label).cumsum(0)
            for row, sizes in zip(missed, self.sizes, strict=True):
                chances = self._survival(population - left_out, sizes[label])
                row *= on_device(chances, ordered.device)[met]
        before = torch.cat([torch.ones_like(missed[:, :1]), missed[:, :-1]], dim=1)
        return ((before - missed) * ordered).sum(1).float()

    def _survival(self, population: int, size: int) -> Tensor:
        """Return the stratum's chances; one that is empty without the image never has any."""
        if population == 0:
            return torch.ones(1, dtype=torch.float64)
        size = size if self.replacement else min(size, population)
        return survival(population, size, replacement=self.replacement)
