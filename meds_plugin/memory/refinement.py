"""A second look at the most suspicious patches, with memories of images that look clean.

Where many images show one kind of defect, memories hold it too, and its patches find themselves
near. Without the images that the first look ranks highest, they no longer do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from meds_plugin.memory.aggregation import OfClusters, RankWeightedSum
from meds_plugin.memory.pairwise import aggregate_distances
from meds_plugin.memory.subsampling import (
    IMAGE_TOLERANCE,
    memory_size,
    on_device,
    rank_weights,
    survival,
)
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from meds_plugin.memory.patch_vectors import PatchVectors

__all__ = ["refined_scores"]

# Share of an image's patches that are looked at again: several times what an image score takes.
_LOOKED_AT = 0.05


def refined_scores(
    vectors: PatchVectors,
    maps: Tensor,
    *,
    keep: float,
    ratio: float,
    top: float = 0.01,
    images: Tensor | None = None,
    clusters: Tensor | None = None,
    stored: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Score images once more, by their distance to random memories of those that look clean.

    Args:
        vectors: Of all N images of a category.
        maps: ``[N, P]`` their first scores, higher = more anomalous.
        keep: Share of the images, by their first image scores, that memories are sampled from; 1
            keeps the first scores.
        ratio: Share of those that a memory holds, with replacement; an image is in none of its own.
        top: Share of an image's patches that make its score; 0 takes the highest.
        images: Which images to score; default: all.
        clusters: ``[N]`` which of the images count as one in memories, by numbers from 0 on;
            default: each on its own.
        stored: The images that memories are sampled from (see `stored_images`); default: all.
        progress: See `ScoreOptions`.

    Returns:
        ``[len(images)]`` mean cosine distances in [0, 2], higher = more anomalous; the first image
        scores where fewer than two images are kept.
    """
    first = image_score(maps[:, None], top)
    images = torch.arange(len(first)) if images is None else images
    clusters = torch.arange(len(first)) if clusters is None else clusters
    whole = first.new_zeros(int(clusters.max()) + 1)
    whole.scatter_reduce_(0, clusters, first, "amax")  # distances are not negative
    count = int(keep * len(whole))
    if keep == 1 or count < 2:
        return first[images]
    kept = whole.argsort(stable=True)[:count]
    if stored is not None:
        kept = kept[torch.isin(kept, clusters[stored])]
        if len(kept) < 2:
            return first[images]
    kept = kept.sort().values
    own = torch.isin(clusters, kept)
    bank = vectors if stored is None else vectors.take(torch.nonzero(own).flatten())
    places = torch.where(own, torch.searchsorted(kept, clusters), -1)
    places = places if stored is None else places[own]
    size = memory_size(len(kept), ratio)
    chances = survival(len(kept), size, replacement=True)
    weights = on_device(rank_weights(chances[None], IMAGE_TOLERANCE), vectors.device)
    most = max(int(top * maps.shape[1]), math.ceil(_LOOKED_AT * maps.shape[1]))
    patches = maps[images].topk(most, dim=1).indices
    queries = vectors.take_patches(images.repeat_interleave(most), patches.flatten())
    scores = aggregate_distances(
        bank,
        OfClusters(RankWeightedSum(weights), places.to(vectors.device)),
        queries=queries,
        progress=progress,
    )
    scores = scores.flatten()[: patches.numel()].view(patches.shape).cpu()
    # A memory with the image itself finds its patches at distance 0. The mean over the others
    # follows: divide by their chance.
    scores[own[images]] /= float(chances[1])
    again = torch.full_like(maps[images], -torch.inf).scatter_(1, patches, scores)
    return image_score(again[:, None], top)
