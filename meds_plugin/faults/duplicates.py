"""Groups images that are nearly the same picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meds_plugin.faults.measure import Look

__all__ = ["near_duplicate_groups"]

_PAIRS = 20_000  # sampled to tell how far images are usually apart
_AROUND = 80
_BLOCK = 4096


class _Limit(NamedTuple):
    """Near-duplicates differ in at most ``most`` bits, and in ``mads`` MADs less than usual."""

    most: int
    mads: int

    def bits(self, distances: NDArray[Any]) -> float:
        """Return the limit where images usually have these distances."""
        median = np.median(distances)
        mad = 1.4826 * np.median(np.abs(distances - median))
        return float(min(self.most, median - self.mads * mad))


# Six MADs: less than one pair in 10^9, were distances normal. Fewer pairs come to the second test.
_IN_SET, _NEARBY = _Limit(64, 6), _Limit(90, 4)


def near_duplicate_groups(looks: Sequence[Look], sets: Sequence[str]) -> list[int]:
    """Number images such that those of one number are nearly the same picture.

    An image is hashed to 255 bits: whether each low frequency is above its median over the set,
    so that what all images of a product have in common does not count. Two images are nearly the
    same if they are much nearer than usual, in their set and once more, hashed anew, among the
    80 images around each of them, as a set may hold several products. Groups are transitive. An
    image that is there again turned, mirrored or cropped is not found, nor is one in a group of
    many more than 40.

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

    bits = _bits(waves)
    # One of equal hashes stands for all: a thousand of them would be a million pairs.
    hashes, origin, place = np.unique(
        np.packbits(bits, axis=1), axis=0, return_index=True, return_inverse=True
    )
    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(hashes)
    one, two = numpy_rng(0, "near-duplicates").integers(0, len(bits), (2, _PAIRS))
    usual = (bits[one] != bits[two]).sum(1)[one != two]
    near = _near(index, hashes, _IN_SET.bits(usual)) if len(usual) else _links([], [], 1)
    rows = np.flatnonzero(near.sum(1) > 1)  # all are near themselves
    nearby = [np.zeros((2, 0), np.int64)]
    if len(rows):
        around = index.search(hashes[rows], min(_AROUND, len(hashes)))[1]
        for row, others in zip(rows, around, strict=True):
            like = others[_like_first(waves[origin[others]])]
            nearby.append(np.stack([np.full(len(like), row), like]))
    rows, columns = np.concatenate(nearby, axis=1)
    again = _links(rows, columns, len(hashes))
    labels = connected_components(near * again * again.T, directed=False)[1]
    return np.asarray(labels[place.ravel()])


def _bits(waves: NDArray[np.float32]) -> NDArray[np.bool_]:
    return waves > np.median(waves, axis=0)


def _near(index: Any, hashes: NDArray[np.uint8], most: float) -> Any:
    """Return which hashes differ in at most that many bits, as a sparse matrix."""
    rows, columns = [], []
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        limits, _, found = index.range_search(block, int(max(0, most)) + 1)
        rows.append(np.repeat(start + np.arange(len(block)), np.diff(limits.astype(np.int64))))
        columns.append(found)
    return _links(np.concatenate(rows), np.concatenate(columns), len(hashes))


def _like_first(waves: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which images of a neighbourhood are nearly the first one."""
    count, width = waves.shape
    usual = width * pdist(_bits(waves), "hamming")  # those to the first come first
    return np.flatnonzero(np.append(0, usual[: count - 1]) <= _NEARBY.bits(usual))


def _links(rows: Any, columns: Any, count: int) -> Any:
    return coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count)).tocsr()
