"""Which images are alike: the nearest normal one of each, and groups of like defects."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from meds_plugin.review.ranked_run import RankedImage, RankedRun

__all__ = ["Likeness", "find_likeness"]

_NORMAL = 4096  # images of a category, the least suspicious, among which the nearest is looked for
_BLOCK = 4096  # images compared with those at once
_SUSPICIOUS = 2000  # images that are grouped; time and memory grow with their square
_SHARE = 0.1  # of the images, where the selection left none out
_CUT = 0.5  # cosine distance up to which groups are joined


class Likeness(NamedTuple):
    """What is alike, by image in the ranking's order.

    Attributes:
        nearest: Place in the ranking of the nearest normal image; ``None``: its category has no
            other one.
        defects: Number of its group of like defects, 1 for the group with the most suspicious
            image; ``None``: it is in none.
    """

    nearest: list[int | None]
    defects: list[int | None]


def find_likeness(ranked: RankedRun, embeddings: Mapping[str, NDArray[np.float32]]) -> Likeness:
    """Compare the images of a run.

    An image counts as normal if it is selected and less suspicious than half of the selected
    images of its category.

    Args:
        ranked: The training images.
        embeddings: Unit vectors ``[N, D]`` in the manifest's order: ``image``, what each shows, and
            ``peak``, what is odd about it.
    """
    place = {name: index for index, name in enumerate(ranked.manifest)}
    order = [place[image.path] for image in ranked.images]
    image, peak = (embeddings[name][order] for name in ("image", "peak"))
    return Likeness(_nearest_normal(ranked.images, image), _like_defects(ranked.images, peak))


def _nearest_normal(
    images: Sequence[RankedImage], vectors: NDArray[np.float32]
) -> list[int | None]:
    nearest: list[int | None] = [None] * len(images)
    for members in group_indices([image.category for image in images]).values():
        places = members.tolist()
        selected = [index for index in places if images[index].selected]
        normal = np.array(selected[len(selected) // 2 :][-_NORMAL:])
        for start in range(0, len(places) if normal.size else 0, _BLOCK):
            block = np.array(places[start : start + _BLOCK])
            cosines = vectors[block] @ vectors[normal].T
            cosines[block[:, None] == normal] = -np.inf  # none is its own neighbour
            best = cosines.argmax(1)
            for row, index in enumerate(block.tolist()):
                if np.isfinite(cosines[row, best[row]]):
                    nearest[index] = int(normal[best[row]])
    return nearest


def _like_defects(images: Sequence[RankedImage], vectors: NDArray[np.float32]) -> list[int | None]:
    """Group the most suspicious images by average linkage; an image alone is in no group."""
    left_out = [index for index, image in enumerate(images) if not image.selected]
    suspicious = (left_out or list(range(round(_SHARE * len(images)))))[:_SUSPICIOUS]
    groups: list[int | None] = [None] * len(images)
    if len(suspicious) < 2:
        return groups
    chosen = vectors[suspicious].astype(np.float64)
    distance = (1 - chosen @ chosen.T)[np.triu_indices(len(chosen), 1)]
    labels = fcluster(linkage(distance.clip(0), "average"), _CUT, "distance").tolist()
    members = Counter(labels)
    numbers: dict[int, int] = {}
    for index, label in zip(suspicious, labels, strict=True):
        if members[label] > 1:
            groups[index] = numbers.setdefault(label, len(numbers) + 1)
    return groups
