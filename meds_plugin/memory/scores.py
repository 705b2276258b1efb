"""Memory scores: distances of patches to random sets of training images, sampled or expected.

With d_(1) <= ... <= d_(N) the distances from a patch to its nearest patch in each of N images, a
random memory scores it by the smallest one it holds. `bootstrap_scores` averages over sampled
memories; `expected_scores` takes the mean over all of them in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import torch
from torch import Tensor

from meds_plugin.memory.aggregation import RankWeightedSum, StratifiedExpectation, of_clusters
from meds_plugin.memory.neighbors import nearest_distances
from meds_plugin.memory.pairwise import aggregate_distances, as_queries
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.stored import apart_from_itself, stored_images
from meds_plugin.memory.subsampling import (
    IMAGE_TOLERANCE,
    check_ratio,
    memory_size,
    on_device,
    population_of,
    rank_weights,
    survival,
)
from meds_plugin.utils.groups import first_of
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from typing_extensions import Unpack

    from meds_plugin.memory.aggregation import Aggregation
    from meds_plugin.memory.neighbors import Backend

__all__ = [
    "ScoreOptions",
    "Unit",
    "expected_scores",
    "gap_curve",
    "stored_scores",
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
            are left out, because a defect's patches resemble each other. Default false.
        clusters: ``[N]`` which of the images count as one, by numbers from 0 on: a memory holds all
            images of a cluster or none, and N is the number of clusters. Default: each on its own.
            Needs ``unit="image"``.
        stored: If there are more images (clusters), memories are sampled from this many, chosen at
            random; ``ratio`` is a share of those. The cost is then N times that number, and an
            image's memories are sampled from the other images only. Needs ``unit="image"``.
        seed: Seed of that choice.
        strata: A label per image (of a cluster, its first image's counts): memories take
            ``ceil(ratio * n_s)`` images of each stratum and are searched as a whole (Real-IAD:
            camera views, without replacement).
        dtype: Type of the matrix products, default float32; `PatchVectors` bring their own.
            bfloat16 rounds distances to a relative 2^-9.
        memory_budget: Bytes that distances may take, beside the features and their unit vectors.
            Default: an amount that grows as they do (see `pairwise.default_budget`). Results do
            not depend on it; time doubles if only single rows of the table fit.
        search: Backend of the nearest-neighbour search for ``unit="patch"`` (see `neighbors`).
        progress: Called with the pairs (``unit="patch"``: images) done and their total.
    """

    unit: Unit
    replacement: bool
    leave_self_out: bool
    clusters: Tensor | None
    stored: int | None
    seed: int
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
    stored: int | None = None
    seed: int = 0
    strata: Sequence[Hashable] | None = None
    dtype: torch.dtype = torch.float32
    memory_budget: int | None = None
    search: Backend = "auto"
    progress: Callable[[int, int], None] | None = None


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
    some = stored_images(
        len(stored),
        chosen.stored,
        generator=torch_generator(chosen.seed, "stored"),
        clusters=chosen.clusters,
        strata=chosen.strata,
    )
    if some is not None:
        return _over_stored(stored, ratios, some, chosen, queries=asked)
    inner = _expectation(stored, ratios, chosen)
    return aggregate_distances(
        stored,
        of_clusters(inner, chosen.clusters, stored.device, leave_self_out=chosen.leave_self_out),
        queries=asked,
        leave_self_out=chosen.leave_self_out,
        memory_budget=chosen.memory_budget,
        progress=chosen.progress,
    )


def stored_scores(
    vectors: PatchVectors,
    ratio: float,
    some: Tensor,
    *,
    images: Tensor | None = None,
    queries: PatchVectors | None = None,
    **options: Unpack[ScoreOptions],
) -> Tensor:
    """Return `expected_scores` of images, over memories of some of them.

    Args:
        vectors: Of all N images.
        ratio: Share of the stored images that a memory holds.
        some: Indices of the stored images (see `stored_images`).
        images: Which images to score; default: all.
        queries: What to score instead, from `as_queries`.
        **options: See `ScoreOptions`; ``clusters`` and ``strata`` of all N.

    Returns:
        ``[Q, P]`` cosine distances in [0, 2], higher = more anomalous.
    """
    chosen = _Options(**options)
    return _over_stored(vectors, [ratio], some, chosen, images=images, queries=queries)[0]


def _over_stored(
    vectors: PatchVectors,
    ratios: Sequence[float],
    some: Tensor,
    options: _Options,
    *,
    queries: PatchVectors | None = None,
    images: Tensor | None = None,
) -> Tensor:
    """Return ``[R, Q, P']`` expectations over memories of some images, of queries or images."""
    clusters, strata = options.clusters, options.strata
    inner = replace(
        options,
        clusters=None if clusters is None else clusters[some].unique(return_inverse=True)[1],
        strata=None if strata is None else [strata[image] for image in some.tolist()],
        leave_self_out=False,
    )
    stored = vectors.take(some)
    aggregation = _expectation(stored, ratios, inner)
    scores = aggregate_distances(
        stored,
        of_clusters(aggregation, inner.clusters, stored.device, leave_self_out=False),
        queries=queries or (vectors if images is None else vectors.take(images)),
        memory_budget=options.memory_budget,
        progress=options.progress,
    )
    if queries is not None:
        return scores
    return apart_from_itself(
        scores,
        some,
        torch.arange(len(vectors)) if images is None else images,
        ratios,
        clusters=clusters,
        strata=strata,
        replacement=options.replacement,
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
        (left_out and population_of(count, clusters) == 1, "one image alone cannot be left out"),
        (clusters is not None and unit == "patch", "clusters need unit='image'"),
        (options.stored is not None and unit == "patch", "stored needs unit='image'"),
        (options.stored is not None and options.stored < 1, "stored must be at least 1"),
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
    whole = population_of(len(stored), options.clusters)
    population = whole - options.leave_self_out
    sizes = [memory_size(whole, ratio) for ratio in ratios]
    if not options.replacement:
        sizes = [min(size, population) for size in sizes]
    rows = [survival(population, size, replacement=options.replacement) for size in sizes]
    weights = rank_weights(torch.stack(rows), IMAGE_TOLERANCE)
    return RankWeightedSum(on_device(weights, stored.device))


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
