"""Distances between the patches of all pairs of images: each pair once, in bounded memory.

Three ways to walk the pairs give the same numbers (see `strip_width`). What is held beside the
vectors themselves grows with the number of images, not with its square (see `default_budget`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from meds_plugin.memory.patch_vectors import PatchVectors, bits, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MEMORY_BUDGET",
    "PatchVectors",
    "Reducer",
    "as_queries",
    "bits",
    "default_budget",
    "scan",
    "strip_width",
]

# Bytes of distances where a reducer has to see all columns at once.
MEMORY_BUDGET = 1 << 30


class Reducer(Protocol):
    """Turns the distances of one image's patches to all stored images into scores.

    Distances arrive as ``[columns, P]``, a row a stored image.

    Attributes:
        kept: Rows of the state that `merge` keeps between strips of columns; ``None`` if all
            columns have to be seen at once.
        outputs: Scores a patch.
    """

    @property
    def kept(self) -> int | None: ...  # noqa: D102

    @property
    def outputs(self) -> int: ...  # noqa: D102

    def merge(self, state: Tensor, distances: Tensor, first: int) -> Tensor:
        """Return the state ``[kept, P]`` after more columns, the first of which is ``first``."""

    def finish(self, image: int, state: Tensor | None, distances: Tensor, first: int) -> Tensor:
        """Return ``[outputs, P]`` after the last columns; no state means that these are all."""


def strip_width(images: int, row_bytes: int, kept: int | None, budget: int) -> int:
    """Choose how the pairs are walked.

    Args:
        images: N.
        row_bytes: Bytes of one distance for every patch of every image.
        kept: See `Reducer`.
        budget: Bytes that distances may take in all.

    Returns:
        N: the whole table fits, one strip. Between: strips of that many columns, beside them a
        state for every patch; each pair still compared once. 0: neither fits (or the strips would
        be so narrow that merging costs more than comparing), image by image, each pair twice.
    """
    columns = budget // row_bytes
    if columns >= images:
        return images
    if kept is None:
        return 0
    # A strip's distances are held in both directions.
    width = (columns - kept) // 2
    return width if width >= max(1, kept // 8) else 0


def default_budget(images: int, row_bytes: int, kept: int | None) -> int:
    """Return the bytes that distances take unless told otherwise.

    Strips are half as wide as the state is high, which keeps merging cheap; a state of K rows for
    every patch is needed in any case. K tends to a bound that depends on the ratio only, so that
    twice K rows of N * P distances grow like the vectors do.
    """
    return MEMORY_BUDGET if kept is None else row_bytes * min(images, 2 * kept)


@torch.no_grad()
def scan(
    features: Tensor | PatchVectors,
    reducer: Reducer,
    *,
    queries: Tensor | PatchVectors | None = None,
    leave_self_out: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compare all patches of all images and reduce the distances to scores.

    Args:
        features: ``[N, P, D]`` stored images.
        reducer: What to make of the distances ``min over patches z of image j of 1 - cos(q, z)``.
        queries: ``[Q, P', D]``; default the stored images, whose distance to themselves is 0.
        leave_self_out: Make an image's distance to itself infinite.
        dtype: Type of the products; `PatchVectors` bring their own.
        memory_budget: Bytes that distances may take; at least one row of N * P is always held.
            Default: see `default_budget`.
        progress: Called with the image pairs done and their number.

    Returns:
        ``[outputs, Q, P']`` float32.

    Raises:
        ValueError: See `PatchVectors`.
    """
    stored = features if isinstance(features, PatchVectors) else PatchVectors(features, dtype)
    report = progress or (lambda _done, _total: None)
    if memory_budget is None:
        memory_budget = default_budget(len(stored), stored.row_bytes, reducer.kept)
    if queries is not None:
        asked = as_queries(queries, stored)
        return _image_by_image(stored, asked, reducer, report, memory_budget)
    width = strip_width(len(stored), stored.row_bytes, reducer.kept, memory_budget)
    if width == 0:
        return _image_by_image(
            stored, stored, reducer, report, memory_budget, leave_self_out=leave_self_out
        )
    return _by_strips(stored, width, reducer, report, leave_self_out=leave_self_out)


def as_queries(queries: Tensor | PatchVectors, stored: PatchVectors) -> PatchVectors:
    """Return queries as vectors beside the stored ones.

    Raises:
        ValueError: If they have other channels.
    """
    channels = queries.channels if isinstance(queries, PatchVectors) else queries.shape[-1]
    if channels != stored.channels:
        msg = f"queries have {channels} channels, the features {stored.channels}"
        raise ValueError(msg)
    if isinstance(queries, PatchVectors):
        return queries
    return PatchVectors(queries.to(stored.device), stored.data.dtype)


def _own(vectors: PatchVectors, image: int, *, leave_self_out: bool) -> Tensor:
    """Return ``[P]`` distances to the nearest patch of the same image."""
    own = vectors.own[image]
    return torch.full_like(own, torch.inf) if leave_self_out else own


def _image_by_image(
    stored: PatchVectors,
    asked: PatchVectors,
    reducer: Reducer,
    report: Callable[[int, int], None],
    budget: int,
    *,
    leave_self_out: bool = False,
) -> Tensor:
    """Compare one query image with all stored ones at a time.

    Where stored vectors are fetched in pieces, several images ask each piece, as many as the budget
    has rows for.
    """
    count, patches = asked.data.shape[:2]
    scores = torch.empty(reducer.outputs, count, patches, device=stored.device)
    row_bytes = len(stored) * patches * stored.data.element_size()
    most = max(1, budget // row_bytes)
    for tile in _tiles(stored, range(count), most):
        lefts = [asked.mirrored(image) for image in tile]
        rows = lefts[0].new_empty(len(tile), len(stored), patches)
        for piece in stored.pieces(range(len(stored))):
            right = stored.fetch(piece)
            for row, left in zip(rows, lefts, strict=True):
                for columns, block in blocks(left, right, piece.start):
                    bits(row)[columns] = block.amin(2).t()
        for row, image in zip(rows, tile, strict=True):
            bits(row).clamp_(min=0)
            if asked is stored:
                row[image] = _own(stored, image, leave_self_out=leave_self_out)
            scores[:, image] = reducer.finish(image, None, row, 0)
            report((image + 1) * len(stored), count * len(stored))
    return scores


def _tiles(stored: PatchVectors, images: range, most: int) -> list[range]:
    """Cut the images that ask into as many as meet a piece of the stored ones together."""
    return [
        range(start, min(start + most, piece.stop))
        for piece in stored.pieces(images, askers=True)
        for start in piece[::most]
    ]


def _by_strips(
    stored: PatchVectors,
    width: int,
    reducer: Reducer,
    report: Callable[[int, int], None],
    *,
    leave_self_out: bool,
) -> Tensor:
    """Compare every pair once; a strip of images is complete when its turn is over.

    Images of a strip have met all earlier ones through the state, and meet the strip itself and
    all later ones now. Later images take what they saw of the strip into their state.
    """
    count, patches = stored.data.shape[:2]
    scores = torch.empty(reducer.outputs, count, patches, device=stored.device)
    state: Tensor | None = None
    if width < count and reducer.kept is not None:
        state = stored.own.new_full((count, reducer.kept, patches), torch.inf)
    for start in range(0, count, width):
        stop = min(start + width, count)
        ahead = stored.own.new_empty(stop - start, count - start, patches)
        behind = stored.own.new_empty(count - stop, stop - start, patches)
        for tile in _tiles(stored, range(start, stop), width):
            _meet_later_ones(stored, tile, start, stop, ahead, behind)
            for image in tile:
                own = _own(stored, image, leave_self_out=leave_self_out)
                ahead[image - start, image - start] = own
                report((image + 1) * (2 * count - image) // 2, count * (count + 1) // 2)
        for image in range(start, stop):
            seen = state[image] if state is not None and start > 0 else None
            scores[:, image] = reducer.finish(image, seen, ahead[image - start], start)
        if state is not None:
            for image in range(stop, count):
                state[image] = reducer.merge(state[image], behind[image - stop], start)
        del ahead, behind  # before the next ones are there
    return scores


def _meet_later_ones(
    stored: PatchVectors, tile: range, start: int, stop: int, ahead: Tensor, behind: Tensor
) -> None:
    """Compare the images of a tile, in the strip start..stop, with all that come after them.

    Args:
        stored: All images.
        tile: Those that ask.
        start: First image of the strip.
        stop: First image after it.
        ahead: ``[stop - start, N - start, P]`` distances from the strip's patches to each image.
        behind: ``[N - stop, stop - start, P]`` from later images' patches to each of the strip.
    """
    lefts = [stored.mirrored(image) for image in tile]
    # In the strip and after it, what a block sees from either side goes to different tables.
    for others in (range(tile.start + 1, stop), range(stop, len(stored))):
        for piece in stored.pieces(others):
            right = stored.fetch(piece)
            for image, left in zip(tile, lefts, strict=True):
                first = max(image + 1, piece.start)
                row = image - start
                for columns, block in blocks(left, right[first - piece.start :], first):
                    here = slice(columns.start - start, columns.stop - start)
                    if others.start < stop:
                        mirror = ahead[here, row]
                    else:
                        mirror = behind[columns.start - stop : columns.stop - stop, row]
                    _store(block, ahead[row, here], mirror)


def _store(block: Tensor, forward: Tensor, mirror: Tensor) -> None:
    """Write a block's nearest distances, seen from either side, into two ``[images, P]`` tables."""
    bits(forward).copy_(block.amin(2).t()).clamp_(min=0)
    bits(mirror).copy_(block.amin(0)).clamp_(min=0)
