"""Memories sampled from some of the images only, so that the cost grows with N and not with N^2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.memory.subsampling import memory_size, survival
from meds_plugin.utils.groups import first_of, group_indices

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["apart_from_itself", "stored_images"]


def stored_images(
    count: int,
    stored: int | None,
    *,
    generator: torch.Generator,
    clusters: Tensor | None = None,
    strata: Sequence[Hashable] | None = None,
) -> Tensor | None:
    """Sample the images that memories are sampled from.

    Args:
        count: N images.
        stored: Of how many clusters at most; ``None``: no limit.
        generator: CPU generator; strata use it in the order of their names.
        clusters: ``[N]`` which images count as one, by numbers from 0 on; default: each alone.
        strata: A label per image; each stratum keeps its share.

    Returns:
        Ascending indices, all images of the chosen clusters; ``None`` where all N are stored.
    """
    numbers = torch.arange(count) if clusters is None else clusters
    first = first_of(numbers)
    if stored is None or len(first) <= stored:
        return None
    labels = [""] * len(first) if strata is None else [strata[image] for image in first]
    chosen = []
    for members in group_indices(labels).values():
        share = max(1, round(stored * len(members) / len(first)))
        chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.isin(numbers, torch.cat(chosen)).nonzero().flatten()


def apart_from_itself(
    scores: Tensor,
    stored: Tensor,
    asked: Tensor,
    ratios: Sequence[float],
    *,
    clusters: Tensor | None,
    strata: Sequence[Hashable] | None,
    replacement: bool,
) -> Tensor:
    """Take the stored images out of their own memories: images that are not stored are in none.

    A memory that holds the image finds its patches at distance 0. The mean over those that do not
    follows: divide by their share.

    Args:
        scores: ``[R, Q, P]`` expectations over all memories.
        stored: Indices of the stored images.
        asked: ``[Q]`` which images were scored.
        ratios: R shares of the stored images in a memory.
        clusters: ``[N]`` see `stored_images`.
        strata: N labels, likewise.
        replacement: Whether an image may be sampled several times.

    Raises:
        ValueError: If every memory holds every image.
    """
    numbers = torch.arange(1 + int(torch.cat([asked, stored]).max()))
    numbers = numbers if clusters is None else clusters
    own = torch.isin(numbers[asked], numbers[stored])
    labels = ["" if strata is None else str(strata[image]) for image in asked.tolist()]
    names = ["" if strata is None else str(strata[image]) for image in stored.tolist()]
    result = scores.clone()
    for name, members in group_indices(names).items():
        inside = own & torch.tensor([label == name for label in labels])
        population = len(numbers[stored[members]].unique())
        for row, ratio in zip(result, ratios, strict=True):
            size = memory_size(population, ratio)
            chance = survival(population, size, replacement=replacement)[1]
            if chance == 0 and bool(inside.any()):
                msg = "every memory holds all stored images: take a smaller ratio, or replacement"
                raise ValueError(msg)
            row[inside] /= float(chance)
    return result
