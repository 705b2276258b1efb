"""Groups images that are nearly the same picture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meds_plugin.faults.measure import Look

__all__ = ["near_duplicate_groups"]

_FAR = 64  # bits in which hashes over the set may differ at most
_AROUND = 40, 100  # images of a neighbourhood: a quarter of the set within these limits
_FAR_AROUND, _MADS = 90, 5  # the same for hashes over a neighbourhood, and below its median
_MANY = 5000  # images that take several seconds


def near_duplicate_groups(looks: Sequence[Look], sets: Sequence[str]) -> list[int]:
    """Number images such that those of one number are nearly the same picture.

    An image is hashed to 255 bits: whether each low frequency is above its median over the set,
    so that what all images of a product have in common does not count. As a set may hold several
    products, images with like hashes are hashed anew over the 40 to 100 images around each: the
    two are nearly the same if they are still alike, and much more so than usual there. Groups are
    transitive. An image that is there again turned, mirrored or cropped is not found, nor are
    copies of which there are 20 to 50 or more, unless their hashes are equal.

    Args:
        looks: Of N images.
        sets: Their category or camera view; only images of the same one are compared.

    Returns:
        N numbers, from 0, in order of first appearance; most images have one of their own.
    """
    numbers = np.zeros(len(looks), np.int64)
    first = 0
    for members in group_indices(sets).values():
        labels = _labels(np.stack([looks[i].waves for i in members.tolist()], dtype=np.float32))
        numbers[members.numpy()] = first + labels
        first += 1 + int(labels.max())
    order = {number: place for place, number in enumerate(dict.fromkeys(numbers.tolist()))}
    return [order[number] for number in numbers.tolist()]


def _labels(waves: NDArray[np.float32]) -> NDArray[np.int32]:
    """Number the groups of one set of images ``[N, 255]``."""
    import faiss  # takes a moment

    # One of equal hashes stands for all: a thousand of them would be a million pairs.
    hashes, origin, place = np.unique(
        np.packbits(_bits(waves), axis=1), axis=0, return_index=True, return_inverse=True
    )
    count = len(hashes)
    if count == 1:
        return np.zeros(len(waves), np.int32)
    index: Any = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.use_heap = False  # three times faster
    index.add(hashes)
    rows = np.flatnonzero(index.search(hashes, 2)[0][:, 1] <= _FAR)  # the first is the image itself
    around = min(count, max(_AROUND[0], min(_AROUND[1], count // 4)))
    links: list[tuple[int, int]] = []
    found = zip(rows.tolist(), *index.search(hashes[rows], around), strict=True)
    many = len(rows) > _MANY and sys.stderr.isatty()
    for row, far, others in track(
        found, description="near-duplicates", total=len(rows), enabled=many
    ):
        like = others[(far <= _FAR) & _like_first(waves[origin[others]])]
        links += [(row, other) for other in like.tolist()]
    ones = np.ones(len(links), bool)
    near = coo_array((ones, np.array(links, np.int64).reshape(-1, 2).T), shape=(count, count))
    labels = connected_components(near.tocsr() * near.T.tocsr(), directed=False)[1]
    return np.asarray(labels[place.ravel()])


def _bits(waves: NDArray[np.float32]) -> NDArray[np.bool_]:
    return waves > np.median(waves, axis=0)


def _like_first(waves: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which images of a neighbourhood are nearly the first one, itself among them."""
    count, width = waves.shape
    distances = width * pdist(_bits(waves), "hamming")  # those to the first come first
    usual = np.median(distances)
    mad = 1.4826 * np.median(np.abs(distances - usual))
    near = np.append(0, distances[: count - 1]) <= min(_FAR_AROUND, usual - _MADS * mad)
    return np.asarray(near)
