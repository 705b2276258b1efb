"""The memory ensemble of one group of images, as a run configures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from meds_plugin.memory.bootstrap import bootstrap_scores
from meds_plugin.memory.interval import interval_scores
from meds_plugin.memory.pairwise import as_queries
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.scores import expected_scores, stored_scores
from meds_plugin.memory.stored import stored_images
from meds_plugin.memory.subsampling import population_of, sample_subsets
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import first_of
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from meds_plugin.memory.settings import MemorySettings

__all__ = ["ensemble_scores", "stored_of"]


def stored_of(
    count: int,
    settings: MemorySettings,
    *,
    seed: int,
    group: str,
    views: Sequence[str] | None = None,
    clusters: Tensor | None = None,
) -> Tensor | None:
    """Return the training images that a group's memories are sampled from; ``None``: all.

    Args:
        count: Training images of the group.
        settings: The ensemble.
        seed: The run's seed.
        group: The group's name.
        views: See `ensemble_scores`.
        clusters: Likewise.
    """
    limited = settings.ensemble == "expected" and settings.unit == "image"
    return stored_images(
        count,
        settings.stored if limited else None,
        generator=torch_generator(seed, "stored", group),
        clusters=clusters,
        strata=views,
    )


def ensemble_scores(
    features: Tensor | PatchVectors,
    settings: MemorySettings,
    *,
    seed: int,
    group: str,
    images: Tensor | None = None,
    queries: Tensor | PatchVectors | None = None,
    stored: Tensor | None = None,
    views: Sequence[str] | None = None,
    clusters: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Score patches by their distance to random memories of one group's training features.

    Args:
        features: ``[N, P, D]`` training features of the group, or vectors made of them.
        settings: The ensemble.
        seed: The run's seed; matters to the bootstrap only.
        group: The group's name; its memories are sampled independently of other groups'.
        images: Which training images to score; default: all.
        queries: ``[Q, P', D]`` features to score instead.
        stored: The training images that memories are sampled from (see `stored_of`); default: all.
        views: The camera view of each training image, where there are several: every memory then
            holds ``ratio`` of each, and all are searched together; an interval ignores them.
        clusters: ``[N]`` which training images count as one in the memories, by numbers from 0 on;
            default: each on its own.
        progress: Called with the pairs of images compared and their total.

    Returns:
        ``[Q, P']`` cosine distances in [0, 2], higher = more anomalous.

    Raises:
        UserError: If single patches are to be sampled from several views, or of images that count
            as one.
    """
    features = PatchVectors.of(features, settings.dtype)
    if images is not None and stored is None:
        queries = features.take(images)
    if clusters is not None and settings.unit == "patch":
        msg = "memory.unit=patch cannot count several images as one: give memory.unit=image"
        raise UserError(msg)
    if views is not None and settings.unit == "patch":
        msg = "memory.unit=patch cannot sample each view: give memory.unit=image"
        raise UserError(msg)
    if settings.ensemble == "bootstrap":
        numbers = torch.arange(len(features)) if clusters is None else clusters
        first = first_of(numbers)
        subsets = sample_subsets(
            len(first),
            settings.ratio,
            settings.size,
            generator=torch_generator(seed, "memory", group),
            replacement=settings.replacement,
            strata=None if views is None else [views[image] for image in first],
        )
        return bootstrap_scores(
            features,
            [torch.isin(numbers, subset).nonzero().flatten() for subset in subsets],
            queries,
            decimals=5 if settings.round_cosine else None,
            dtype=settings.dtype,
            progress=progress,
        )
    if settings.ensemble == "interval":
        return interval_scores(
            features,
            settings.interval,
            queries=queries,
            clusters=clusters,
            dtype=settings.dtype,
            progress=progress,
        )
    if stored is not None:
        return stored_scores(
            features,
            settings.ratio,
            stored,
            images=images,
            queries=None if queries is None else as_queries(queries, features),
            replacement=settings.replacement,
            clusters=clusters,
            strata=views,
            progress=progress,
        )
    population = population_of(len(features), clusters)
    return expected_scores(
        features,
        settings.ratio,
        queries=queries,
        unit=settings.unit,
        replacement=settings.replacement,
        # A group of one image has nothing else to be compared with: it stays its own memory.
        leave_self_out=settings.leave_self_out and queries is None and population > 1,
        clusters=clusters,
        strata=views,
        dtype=settings.dtype,
        search=settings.search,
        progress=progress,
    )
