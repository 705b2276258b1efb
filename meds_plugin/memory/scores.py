"""Memory scores: the distance of patches to random sets of training images, drawn or expected.

With d_(1) <= ... <= d_(N) the distances from a patch to its nearest patch in each of N images, a
random memory scores it by the smallest one it holds. `bootstrap_scores` averages over drawn
memories; `expected_scores` takes the mean over all of them in closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from meds_plugin.memory.aggregation import MemoryMinima, OrderedDistances, StratifiedDistances
from meds_plugin.memory.neighbors import nearest_blocks
from meds_plugin.memory.pairwise import PatchVectors, scan
from meds_plugin.memory.subsampling import (
    check_ratio,
    draw_subsets,
    memory_size,
    on_device,
    rank_weights,
    survival,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from meds_plugin.memory.neighbors import Backend
    from meds_plugin.memory.pairwise import Reducer

__all__ = [
    "Unit",
    "bootstrap_scores",
    "by_group",
    "draw_subsets",
    "expected_scores",
    "gap_curve",
    "memory_size",
]

Unit = Literal["image", "patch"]

# Weight of the farthest ranks that may go to the last one kept; distances are at most 2.
_IMAGE_TOLERANCE = 1e-9
_PATCH_TOLERANCE = 1e-7


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
    neither the table of distances nor a number a memory and patch fit into the budget.

    Args:
        features: ``[N, P, D]`` finite patch features of any length; normalised inside. Or
            `PatchVectors` made of them, which may lie in a file; ``dtype`` is then theirs.
        subsets: Image indices of each memory, e.g. from `draw_subsets`; repeats do not matter.
        queries: ``[Q, P', D]`` features to score; default ``features``, where an image in a memory
            finds itself at distance 0.
        decimals: Digits that cosines are rounded to, 5 in the reference; ``None`` for none.
        dtype: Type of the matrix products; a half-precision type halves time or better.
        memory_budget: Bytes that distances may take, beside the features and their unit vectors.
            Default: what two numbers a memory and patch take.
        progress: Called with the pairs of images done and their number.

    Returns:
        ``[Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous.

    Raises:
        ValueError: On empty or non-finite features, no or empty memories, or a foreign index.

    Source:
        METHOD section 5, step 1; equals the reference up to one rounding step of a cosine.
    """
    if not subsets or any(len(subset) == 0 for subset in subsets):
        msg = "every memory needs at least one image, and there must be a memory"
        raise ValueError(msg)
    members = [torch.unique(torch.as_tensor(s, device=features.device).long()) for s in subsets]
    if any(int(m[0]) < 0 or int(m[-1]) >= len(features) for m in members):
        msg = f"memories name images outside 0..{len(features) - 1}"
        raise ValueError(msg)
    reducer = MemoryMinima(members, decimals)
    scores = scan(
        features,
        reducer,
        queries=queries,
        dtype=dtype,
        memory_budget=memory_budget,
        progress=progress,
    )
    return scores[0]


def expected_scores(
    features: Tensor | PatchVectors,
    ratio: float,
    *,
    queries: Tensor | PatchVectors | None = None,
    unit: Unit = "image",
    replacement: bool = True,
    leave_self_out: bool = False,
    strata: Sequence[Hashable] | None = None,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    search: Backend = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the mean of the distance to a random memory over all memories, in closed form.

    Args:
        features: ``[N, P, D]`` finite patch features of any length; normalised inside. Or
            `PatchVectors` made of them, which may lie in a file; ``dtype`` is then theirs.
        ratio: Share of the images (or patches) that a memory holds, in (0, 1].
        queries: ``[Q, P', D]`` features to score; default ``features``. Queries are never stored.
        unit: ``image``: memories are ``ceil(ratio * N)`` whole images (reference). ``patch``:
            every patch is stored with chance ``ratio`` (paper); ``replacement`` is then void.
        replacement: Whether an image may be drawn several times.
        leave_self_out: Draw an image's memories from the other images only: as many as before
            where they are drawn with replacement, else at most N - 1. With ``unit="patch"`` all
            patches of the image are left out, for a defect's patches resemble each other.
        strata: A label an image: memories take ``ceil(ratio * n_s)`` images of each stratum and
            are searched as a whole (Real-IAD: camera views, without replacement).
        dtype: Type of the matrix products. bfloat16 rounds distances to a relative 2^-9.
        memory_budget: Bytes that distances may take, beside the features and their unit vectors.
            Default: as much as grows with them (see `pairwise.default_budget`). Results do not
            depend on it; time doubles where only single rows of the table fit.
        search: What looks for the nearest patches with ``unit="patch"`` (see `neighbors`).
        progress: Called with the pairs (``unit="patch"``: images) done and their number.

    Returns:
        ``[Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous.

    Raises:
        ValueError: On a ratio outside (0, 1], empty or non-finite features, or arguments that
            exclude each other; with ``leave_self_out`` also on a single image.

    Source:
        CONTRACT section 3: sum over k of w_k d_(k), w_k = ((N-k+1)/N)^m - ((N-k)/N)^m with
        replacement, C(N-k, m-1) / C(N, m) without, ratio (1-ratio)^(k-1) for patches.
    """
    return gap_curve(
        features,
        [ratio],
        queries=queries,
        unit=unit,
        replacement=replacement,
        leave_self_out=leave_self_out,
        strata=strata,
        dtype=dtype,
        memory_budget=memory_budget,
        search=search,
        progress=progress,
    )[0]


def gap_curve(
    features: Tensor | PatchVectors,
    ratios: Sequence[float],
    *,
    queries: Tensor | PatchVectors | None = None,
    unit: Unit = "image",
    replacement: bool = True,
    leave_self_out: bool = False,
    strata: Sequence[Hashable] | None = None,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    search: Backend = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return `expected_scores` for many ratios from one pass over the pairs of images.

    The gap of Theorem 1 at a ratio is the mean over anomalous patches minus that over normal ones.

    Args:
        features: As in `expected_scores`, and so are all arguments below.
        ratios: R shares in (0, 1].
        queries: See there.
        unit: See there.
        replacement: See there.
        leave_self_out: See there.
        strata: See there.
        dtype: See there.
        memory_budget: See there.
        search: See there.
        progress: See there.

    Returns:
        ``[R, Q, P']`` float32 cosine distances, higher = more anomalous.

    Raises:
        ValueError: See `expected_scores`; also without any ratio.

    Source:
        Paper, Theorem 1 (PAPER.md item 1): the expected gap as a function of the memory's size.
    """
    _check(features, ratios, queries, unit, strata, leave_self_out=leave_self_out)
    if unit == "patch":
        return _patch_scores(features, ratios, queries, dtype, search, progress, leave_self_out)
    count = len(features)
    reducer: Reducer
    if strata is not None:
        reducer = StratifiedDistances(
            strata,
            ratios,
            replacement=replacement,
            leave_self_out=leave_self_out,
            device=features.device,
        )
    else:
        population = count - leave_self_out
        sizes = [memory_size(count, ratio) for ratio in ratios]
        if not replacement:
            sizes = [min(size, population) for size in sizes]
        rows = [survival(population, size, replacement=replacement) for size in sizes]
        weights = rank_weights(torch.stack(rows), _IMAGE_TOLERANCE)
        reducer = OrderedDistances(on_device(weights, features.device))
    return scan(
        features,
        reducer,
        queries=queries,
        leave_self_out=leave_self_out,
        dtype=dtype,
        memory_budget=memory_budget,
        progress=progress,
    )


def by_group(groups: Mapping[str, Tensor], score: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Score every group (category, view) on its own.

    Args:
        groups: Image indices of each group; together every image once (see
            `meds_plugin.selection.group_indices`). A group of one image is its own memory and
            scores 0.
        score: Takes a group's name and ``[n]`` indices, returns the ``[n, P]`` scores.

    Returns:
        ``[N, P]`` scores in the order of the images.

    Raises:
        ValueError: If the groups do not hold every image exactly once.
    """
    if not groups:
        msg = "there is no group to score"
        raise ValueError(msg)
    members = torch.cat(list(groups.values())).cpu()
    if not torch.equal(members.sort().values, torch.arange(len(members))):
        msg = "groups must hold every image 0..N-1 exactly once"
        raise ValueError(msg)
    scores = torch.cat([score(name, indices) for name, indices in groups.items()])
    return scores[torch.argsort(members).to(scores.device)]


def _check(
    features: Tensor | PatchVectors,
    ratios: Sequence[float],
    queries: Tensor | PatchVectors | None,
    unit: str,
    strata: Sequence[Hashable] | None,
    *,
    leave_self_out: bool,
) -> None:
    """Refuse arguments that contradict each other."""
    for ratio in ratios:
        check_ratio(ratio)
    for wrong, msg in (
        (not ratios, "at least one ratio is needed"),
        (unit not in get_args(Unit), f"unit must be image or patch, got {unit!r}"),
        (
            isinstance(features, Tensor) and (features.ndim != 3 or features.numel() == 0),
            "features must be a non-empty [N, P, D]",
        ),
        (leave_self_out and queries is not None, "queries are not stored: nothing to leave out"),
        (leave_self_out and len(features) == 1, "one image alone cannot be left out"),
        (strata is not None and unit == "patch", "strata need unit='image'"),
        (
            strata is not None and len(strata) != len(features),
            f"there must be a stratum for each of the {len(features)} images",
        ),
    ):
        if wrong:
            raise ValueError(msg)


def _patch_scores(
    features: Tensor | PatchVectors,
    ratios: Sequence[float],
    queries: Tensor | PatchVectors | None,
    dtype: torch.dtype,
    search: Backend,
    progress: Callable[[int, int], None] | None,
    leave_self_out: bool,
) -> Tensor:
    """Return ``[R, Q, P']`` expected distances to random sets of single patches."""
    asked = features if queries is None else queries
    patches = features.patches if isinstance(features, PatchVectors) else features.shape[1]
    stored = (len(features) - leave_self_out) * patches
    # (1 - ratio)^k < tolerance from this k on
    needed = max(
        1 if ratio == 1 else math.ceil(math.log(_PATCH_TOLERANCE) / math.log1p(-ratio)) + 1
        for ratio in ratios
    )
    ranks = torch.arange(min(needed, stored) + 1, dtype=torch.float64)
    rows = torch.stack([(1.0 - ratio) ** ranks for ratio in ratios])
    weights = on_device(rank_weights(rows, _PATCH_TOLERANCE), features.device)
    scores = []
    for found in nearest_blocks(
        features,
        queries,
        weights.shape[1],
        leave_self_out=leave_self_out,
        backend=search,
        dtype=dtype,
    ):
        scores.append((weights @ found.to(weights.dtype).t()).float())
        if progress is not None:
            progress(len(scores), len(asked))
    return torch.stack(scores, dim=1)
