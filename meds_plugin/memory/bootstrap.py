"""Memory scores by sampled memories, as in the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.memory.aggregation import MemoryMean
from meds_plugin.memory.pairwise import aggregate_distances, as_queries
from meds_plugin.memory.patch_vectors import PatchVectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["bootstrap_scores"]


def bootstrap_scores(
    features: Tensor | PatchVectors,
    subsets: Sequence[Tensor],
    queries: Tensor | PatchVectors | None = None,
    *,
    decimals: int | None = 5,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Average over given memories the distance of each patch to the nearest patch stored.

    Each pair of images is compared once, however many memories there are; twice only where
    neither the table of distances nor one number per memory and patch fits into the budget.

    Args:
        features: See `expected_scores`.
        subsets: Image indices of each memory, e.g. from `sample_subsets`; repeats do not matter.
        queries: ``[Q, P', D]`` features to score; default ``features``, where an image in a memory
            finds itself at distance 0.
        decimals: Digits that cosines are rounded to, 5 in the reference; ``None`` for none.
        dtype: See `ScoreOptions`, as for the options below.
        memory_budget: Default: what two numbers per memory and patch take.
        progress: Called with the pairs of images done and their total.

    Returns:
        ``[Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous.

    Raises:
        ValueError: On empty or non-finite features, no or empty memories, or a foreign index.

    Source:
        docs/method.md, section 2; equals the reference up to one rounding step of a cosine.
    """
    if not subsets or any(len(subset) == 0 for subset in subsets):
        msg = "every memory needs at least one image, and there must be a memory"
        raise ValueError(msg)
    members = [torch.unique(torch.as_tensor(s, device=features.device).long()) for s in subsets]
    if any(int(m[0]) < 0 or int(m[-1]) >= len(features) for m in members):
        msg = f"memories name images outside 0..{len(features) - 1}"
        raise ValueError(msg)
    stored = PatchVectors.of(features, dtype)
    return aggregate_distances(
        stored,
        MemoryMean(members, decimals),
        queries=None if queries is None else as_queries(queries, stored),
        memory_budget=memory_budget,
        progress=progress,
    )[0]
