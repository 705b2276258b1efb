"""Finds images that show the product of another category."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["wrong_products"]

_SHARE = 0.2  # fewer images than this share of a category may be wrong, too
_MOST = 500  # images that stand for a category
_MARGIN = 1.25
_BLOCK = 4096


def wrong_products(
    vectors: NDArray[Any], categories: Sequence[str], normal: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which images are nearer to another category than to their own.

    Near to a category is who is near to a fifth of its normal images; another one must be nearer by
    a fifth.

    Args:
        vectors: ``[N, D]`` what images show, of unit length.
        categories: N names.
        normal: ``[N]`` the images that are taken for normal.
    """
    vectors = vectors.astype(np.float32)
    own = np.full(len(vectors), np.inf)
    nearest = np.full(len(vectors), np.inf)
    for members in group_indices(categories).values():
        indices = members.numpy()
        models = indices[normal[indices]]
        if not len(models):
            continue
        models = models[:: -(-len(models) // _MOST)]
        distances = _distances(vectors, vectors[models])
        own[indices] = distances[indices]
        distances[indices] = np.inf
        nearest = np.minimum(nearest, distances)
    wrong: NDArray[np.bool_] = np.isfinite(own) & (own > _MARGIN * nearest)
    return wrong


def _distances(vectors: NDArray[np.float32], models: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distance of each vector within which a fifth of the models lie."""
    place = min(len(models) - 1, int(np.ceil(_SHARE * len(models))))  # one may be the image itself
    blocks = np.split(vectors, range(_BLOCK, len(vectors), _BLOCK))
    nearest = [np.partition(1 - block @ models.T, place, axis=1)[:, place] for block in blocks]
    return np.concatenate(nearest).astype(np.float64)
