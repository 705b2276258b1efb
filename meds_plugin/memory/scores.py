"""Memory scores: distances of patches to random sets of training images, sampled or expected.

With d_(1) <= ... <= d_(N) the distances from a patch to its nearest patch in each of N images, a
random memory scores it by the smallest one it holds. `bootstrap_scores` averages over sampled
memories; `expected_scores` takes the mean over all of them in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import torch
from torch import Tensor

from meds_plugin.memory.aggregation import (
    MemoryMean,
    OfClusters,
    RankWeightedSum,
    StratifiedExpectation,
)
from meds_plugin.memory.neighbors import nearest_distances
from meds_plugin.memory.pairwise import aggregate_distances, as_queries
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.subsampling import (
    IMAGE_TOLERANCE,
    check_ratio,
    interval_weights,
    memory_size,
    on_device,
    rank_weights,
    survival,
)
from meds_plugin.utils.groups import first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from typing_extensions import Unpack

    from meds_plugin.memory.aggregation import Aggregation
    from meds_plugin.memory.neighbors import Backend

__all__ = [
    "ScoreOptions",
    "Unit",
    "bootstrap_scores",
    "expected_scores",
    "gap_curve",
    "interval_scores",
]

Unit = Literal["image", "patch"]

_PATCH_TOLERANCE = 1e-7  # as `IMAGE_TOLERANCE`, for single patches


class ScoreOptions(TypedDict, total=False):
    """Keywords of `expected_scores` and `gap_curve`.

    Attributes:
        unit: ``image`` (default): memories are ``ceil(ratio * N)`` whole images (reference).
            ``patch``: every patch is stored with probability ``ratio`` (paper).
        replacement: Whether an image may be sampled several times; default true. Without effect
            for ``unit="patch"``.
        leave_self_out: Sample an image's memories from the other images only: as many as before
            with replacement, else at most N - 1. With ``unit="patch"`` all patches of the image
            are left out, for a defect's patches resemble each other. Default false.
        clusters: ``[N]`` which of the images count as one, by numbers from 0 on: a memory holds all
            images of a cluster or none, and N is the number of clusters. Default: each on its own.
            Needs ``unit="image"``.
        strata: A label per image (of a cluster, its first image's counts): memories take
            ``ceil(ratio * n_s)`` images of each stratum and are searched as a whole (Real-IAD:
            camera views, without replacement).
        dtype: Type of the matrix products, default float32; `PatchVectors` bring their own.
            bfloat16 rounds distances to a relative 2^-9.
        memory_budget: Bytes that distances may take, beside the features and their unit vectors.
            Default: an amount that grows as they do (see `pairwise.default_budget`). Results do
            not depend on it; time doubles where only single rows of the table fit.
        search: Backend of the nearest-neighbour search for ``unit="patch"`` (see `neighbors`).
        progress: Called with the pairs (``unit="patch"``: images) done and their total.
    """

    unit: Unit
    replacement: bool
    leave_self_out: bool
    clusters: Tensor | None
    strata: Sequence[Hashable] | None
    dtype: torch.dtype
    memory_budget: int | None
    search: Backend
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True)
class _Options:
    """`ScoreOptions` with their defaults."""

    unit: Unit = "image"
    replacement: bool = True
    leave_self_out: bool = False
    clusters: Tensor | None = None
    strata: Sequence[Hashable] | None = None
    dtype: torch.dtype = torch.float32
    memory_budget: int | None = None
    search: Backend = "auto"
    progress: Callable[[int, int], None] | None = None


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


def expected_scores(
    features: Tensor | PatchVectors,
    ratio: float,
    *,
    queries: Tensor | PatchVectors | None = None,
    **options: Unpack[ScoreOptions],
) -> Tensor:
    """Return the mean of the distance to a random memory over all memories, in closed form.

    Args:
        features: ``[N, P, D]`` finite patch features of any length; normalised inside. Or
            `PatchVectors` made of them, which may be stored in a file.
        ratio: Share of the images (or patches) that a memory holds, in (0, 1].
        queries: ``[Q, P', D]`` features to score; default ``features``. Queries are never stored.
        **options: See `ScoreOptions`.

    Returns:
        ``[Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous.

    Raises:
        ValueError: On a ratio outside (0, 1], empty or non-finite features, or options that
            exclude each other; with ``leave_self_out`` also on a single image.

    Source:
        docs/method.md, section 2: the sum of w_k d_(k), w_k = ((N-k+1)/N)^m - ((N-k)/N)^m with
        replacement, C(N-k, m-1) / C(N, m) without, ratio (1-ratio)^(k-1) for patches.
    """
    return gap_curve(features, [ratio], queries=queries, **options)[0]


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
    others = _population(stored, clusters) - (asked is None)
    if others == 0:
        return torch.zeros(len(stored), stored.patches, device=stored.device)
    weights = interval_weights(others, interval)
    inner = RankWeightedSum(on_device(weights[None], stored.device))
    return aggregate_distances(
        stored,
        _of_clusters(inner, clusters, stored, leave_self_out=asked is None),
        queries=asked,
        leave_self_out=asked is None,
        progress=progress,
    )[0]


def gap_curve(
    features: Tensor | PatchVectors,
    ratios: Sequence[float],
    *,
    queries: Tensor | PatchVectors | None = None,
    **options: Unpack[ScoreOptions],
) -> Tensor:
    """Return `expected_scores` for many ratios from one pass over the pairs of images.

    The gap of Theorem 1 at a ratio is the mean over anomalous patches minus that over normal ones.

    Args:
        features: See `expected_scores`.
        ratios: R shares in (0, 1].
        queries: See `expected_scores`.
        **options: See `ScoreOptions`.

    Returns:
        ``[R, Q, P']`` float32 cosine distances in [0, 2], higher = more anomalous.

    Raises:
        ValueError: See `expected_scores`; also without any ratio.

    Source:
        Paper, Theorem 1 (docs/method.md, section 2): the expected gap against the memory's size.
    """
    chosen = _Options(**options)
    stored = PatchVectors.of(features, chosen.dtype)
    asked = None if queries is None else as_queries(queries, stored)
    _check(stored, ratios, asked, chosen)
    if chosen.unit == "patch":
        return _patch_scores(stored, ratios, asked, chosen)
    inner = _expectation(stored, ratios, chosen)
    return aggregate_distances(
        stored,
        _of_clusters(inner, chosen.clusters, stored, leave_self_out=chosen.leave_self_out),
        queries=asked,
        leave_self_out=chosen.leave_self_out,
        memory_budget=chosen.memory_budget,
        progress=chosen.progress,
    )


def _check(
    stored: PatchVectors,
    ratios: Sequence[float],
    asked: PatchVectors | None,
    options: _Options,
) -> None:
    """Refuse arguments that contradict each other."""
    for ratio in ratios:
        check_ratio(ratio)
    count, unit, strata = len(stored), options.unit, options.strata
    left_out = options.leave_self_out
    clusters = options.clusters
    for wrong, msg in (
        (not ratios, "at least one ratio is needed"),
        (unit not in get_args(Unit), f"unit must be image or patch, got {unit!r}"),
        (left_out and asked is not None, "queries are not stored: nothing to leave out"),
        (left_out and _population(stored, clusters) == 1, "one image alone cannot be left out"),
        (clusters is not None and unit == "patch", "clusters need unit='image'"),
        (
            clusters is not None and len(clusters) != count,
            f"there must be a cluster for each of the {count} images",
        ),
        (strata is not None and unit == "patch", "strata need unit='image'"),
        (
            strata is not None and len(strata) != count,
            f"there must be a stratum for each of the {count} images",
        ),
    ):
        if wrong:
            raise ValueError(msg)


def _expectation(stored: PatchVectors, ratios: Sequence[float], options: _Options) -> Aggregation:
    """Return the expectation over memories of whole images."""
    if options.strata is not None:
        strata = options.strata
        if options.clusters is not None:
            strata = [strata[image] for image in first_of(options.clusters)]
        return StratifiedExpectation(
            strata,
            ratios,
            replacement=options.replacement,
            leave_self_out=options.leave_self_out,
            device=stored.device,
        )
    whole = _population(stored, options.clusters)
    population = whole - options.leave_self_out
    sizes = [memory_size(whole, ratio) for ratio in ratios]
    if not options.replacement:
        sizes = [min(size, population) for size in sizes]
    rows = [survival(population, size, replacement=options.replacement) for size in sizes]
    weights = rank_weights(torch.stack(rows), IMAGE_TOLERANCE)
    return RankWeightedSum(on_device(weights, stored.device))


def _population(stored: PatchVectors, clusters: Tensor | None) -> int:
    """Return how many images memories are sampled from."""
    return len(stored) if clusters is None else int(clusters.max()) + 1


def _of_clusters(
    inner: Aggregation, clusters: Tensor | None, stored: PatchVectors, *, leave_self_out: bool
) -> Aggregation:
    if clusters is None:
        return inner
    return OfClusters(inner, clusters.to(stored.device), leave_self_out=leave_self_out)


def _patch_scores(
    stored: PatchVectors,
    ratios: Sequence[float],
    asked: PatchVectors | None,
    options: _Options,
) -> Tensor:
    """Return ``[R, Q, P']`` expected distances to random sets of single patches."""
    searched = (len(stored) - options.leave_self_out) * stored.patches
    # (1 - ratio)^k < tolerance from this k on
    needed = max(
        1 if ratio == 1 else math.ceil(math.log(_PATCH_TOLERANCE) / math.log1p(-ratio)) + 1
        for ratio in ratios
    )
    ranks = torch.arange(min(needed, searched) + 1, dtype=torch.float64)
    rows = torch.stack([(1.0 - ratio) ** ranks for ratio in ratios])
    weights = on_device(rank_weights(rows, _PATCH_TOLERANCE), stored.device)
    found = nearest_distances(
        stored,
        asked,
        weights.shape[1],
        leave_self_out=options.leave_self_out,
        backend=options.search,
    )
    scores = []
    for distances in found:
        scores.append((weights @ distances.to(weights.dtype).t()).float())
        if options.progress is not None:
            options.progress(len(scores), len(asked or stored))
    return torch.stack(scores, dim=1)
