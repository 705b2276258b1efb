"""Memory scores without memories: the mean of an interval of the sorted distances, as in MuSc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.memory.aggregation import RankWeightedSum, of_clusters
from meds_plugin.memory.pairwise import aggregate_distances, as_queries
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.subsampling import interval_weights, on_device, population_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["interval_scores"]


def interval_scores(
    features: Tensor | PatchVectors,
    interval: Sequence[float],
    *,
    queries: Tensor | PatchVectors | None = None,
    clusters: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Average an interval of the sorted distances from each patch to the other images.

    Args:
        features: See `expected_scores`.
        interval: Ascending shares (lower, upper) in [0, 1] (see `interval_weights`).
        queries: ``[Q, P', D]`` features to score; default ``features``, where an image is left out
            of its own distances.
        clusters: See `ScoreOptions`, as for the options below.
        dtype: See `ScoreOptions`.
        progress: Called with the pairs of images done and their total.

    Returns:
        ``[Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous; 0 for a single
        image, which has none to be compared with.

    Source:
        MuSc, whose distances are Euclidean: the order of images by one patch is the same, the
        means are not.
    """
    stored = PatchVectors.of(features, dtype)
    asked = None if queries is None else as_queries(queries, stored)
    others = population_of(len(stored), clusters) - (asked is None)
    if others == 0:
        return torch.zeros(len(stored), stored.patches, device=stored.device)
    weights = interval_weights(others, interval)
    inner = RankWeightedSum(on_device(weights[None], stored.device))
    return aggregate_distances(
        stored,
        of_clusters(inner, clusters, stored.device, leave_self_out=asked is None),
        queries=asked,
        leave_self_out=asked is None,
        progress=progress,
    )[0]
