"""How the distances from one image's patches to all stored images become scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from meds_plugin.memory.patch_vectors import bits
from meds_plugin.memory.subsampling import memory_size, on_device, survival
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = [
    "Aggregation",
    "MemoryMean",
    "OfClusters",
    "RankWeightedSum",
    "StratifiedExpectation",
    "of_clusters",
]


class Aggregation(Protocol):
    """Turns the distances of one image's patches to all stored images into scores.

    Distances arrive as ``[columns, P]``, one row per stored image, in one or several strips.

    Attributes:
        state_rows: Rows of the state that sums up the strips seen so far; ``None`` if all columns
            are needed at once.
        outputs: Scores per patch.
    """

    @property
    def state_rows(self) -> int | None: ...  # noqa: D102

    @property
    def outputs(self) -> int: ...  # noqa: D102

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:
        """Return the state ``[state_rows, P]`` after more columns.

        Args:
            state: After the columns before; ``None``, or all infinite, if there were none.
            distances: ``[columns, P]``.
            first: Index of the first column.
        """

    def scores(self, image: int, state: Tensor) -> Tensor:
        """Return ``[outputs, P]`` scores of an image from the state after the last column."""


class MemoryMean:
    """Mean over given memories of the smallest distance to an image in each.

    Args:
        members: Ascending indices of each memory's images, without repeats.
        decimals: Digits that cosines are rounded to; ``None`` for none. Rounding preserves the
            order, so it may follow the minimum.
    """

    outputs = 1

    def __init__(self, members: Sequence[Tensor], decimals: int | None) -> None:
        self.members = members
        self.decimals = decimals
        self.state_rows = len(members)
        self._columns: tuple[tuple[int, int], list[Tensor]] = ((0, 0), [])

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:
        """Return each memory's minimum so far, infinite if it has no image yet."""
        minima = distances.new_full((self.state_rows, distances.shape[1]), torch.inf)
        for row, columns in zip(minima, self._within(first, len(distances)), strict=True):
            if len(columns) > 0:
                torch.amin(bits(distances)[columns], 0, out=bits(row))
        return minima if state is None else torch.minimum(minima, state)

    def scores(self, image: int, state: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``[1, P]`` means."""
        minima = state.float()
        if self.decimals is not None:
            minima = 1.0 - torch.round(1.0 - minima, decimals=self.decimals)
        return minima.mean(0, keepdim=True)

    def _within(self, first: int, count: int) -> list[Tensor]:
        """Return each memory's images among ``count`` columns, counted from the first of these."""
        if self._columns[0] != (first, count):
            inside = [m[(m >= first) & (m < first + count)] - first for m in self.members]
            self._columns = ((first, count), inside)
        return self._columns[1]


class RankWeightedSum:
    """Weighted sums of the sorted distances: expectations over memories of like images.

    Args:
        weights: ``[R, K]`` weights of the K smallest distances, from `subsampling.on_device`.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.outputs, self.state_rows = weights.shape

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return the K smallest distances so far, ascending; by their bits, which sort faster."""
        seen = distances if state is None else torch.cat([state, distances])
        keys = bits(seen)
        if 2 * self.state_rows < len(keys):
            smallest = keys.topk(self.state_rows, dim=0, largest=False).values
        else:
            smallest = keys.sort(dim=0).values[: self.state_rows]
        return smallest.view(distances.dtype)

    def scores(self, image: int, state: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``[R, P]`` expectations."""
        return (self.weights @ state.to(self.weights.dtype)).float()


class StratifiedExpectation:
    """Expectations over memories that sample every stratum separately.

    The chance that a memory holds none of the k nearest images is the product of the strata's
    chances. It depends on whose images those are, so all columns are needed at once.

    Args:
        strata: A label per image.
        ratios: R shares of each stratum's images, in (0, 1].
        replacement: Whether an image may be sampled several times.
        leave_self_out: Whether an image (at infinite distance) is missing from its stratum.
        device: Where the distances are.
    """

    state_rows = None

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

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return the distances, which are all there are."""
        return distances

    def scores(self, image: int, state: Tensor) -> Tensor:
        """Return ``[R, P]`` expectations."""
        ordered, ranks = state.float().sort(dim=0)
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
        """Return the stratum's `survival`; one that is empty without the image is always missed."""
        if population == 0:
            return torch.ones(1, dtype=torch.float64)
        size = size if self.replacement else min(size, population)
        return survival(population, size, replacement=self.replacement)


class OfClusters:
    """Distances to clusters of images, each to the nearest of them, aggregated further.

    Args:
        inner: What takes the distances to the clusters.
        clusters: ``[N]`` the cluster of each image, from 0 on; -1: in no memory.
        leave_self_out: Whether a cluster is missing where its own images are scored.
    """

    state_rows = None

    def __init__(
        self, inner: Aggregation, clusters: Tensor, *, leave_self_out: bool = False
    ) -> None:
        self.inner = inner
        self.outputs = inner.outputs
        self.clusters = clusters
        self.leave_self_out = leave_self_out
        self._stored = torch.nonzero(clusters >= 0).flatten()
        self._rows = clusters[self._stored, None]
        self._count = int(clusters.max()) + 1

    def update(self, state: Tensor | None, distances: Tensor, first: int) -> Tensor:  # noqa: ARG002
        """Return the distances, which are all there are."""
        return distances

    def scores(self, image: int, state: Tensor) -> Tensor:
        """Return ``[outputs, P]`` scores of an image."""
        nearest = state.new_full((self._count, state.shape[1]), torch.inf)
        rows = self._rows.expand(-1, state.shape[1])
        nearest.scatter_reduce_(0, rows, state[self._stored], "amin")
        own = image
        if self.leave_self_out:
            own = int(self.clusters[image])
            nearest[own] = torch.inf
        return self.inner.scores(own, self.inner.update(None, nearest, 0))


def of_clusters(
    inner: Aggregation, clusters: Tensor | None, device: torch.device, *, leave_self_out: bool
) -> Aggregation:
    """Return an aggregation of distances to clusters; ``None``: each image is on its own."""
    if clusters is None:
        return inner
    return OfClusters(inner, clusters.to(device), leave_self_out=leave_self_out)
