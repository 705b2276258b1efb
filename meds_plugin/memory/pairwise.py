"""Distances between the patches of all pairs of images: each pair once, in bounded memory.

Three ways of visiting the pairs give the same numbers (see `strip_width`). Beside the vectors
themselves, memory grows with the number of images, not with its square (see `default_budget`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.memory.patch_vectors import PatchVectors, bits, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from meds_plugin.memory.aggregation import Aggregation

__all__ = ["aggregate_distances", "as_queries", "default_budget", "strip_width"]

# Bytes of distances where an aggregation needs all columns at once.
_TABLE_BYTES = 1 << 30


def strip_width(images: int, row_bytes: int, state_rows: int | None, budget: int) -> int:
    """Choose how to visit the pairs.

    Args:
        images: N.
        row_bytes: Bytes of one distance for every patch of every image.
        state_rows: See `Aggregation`.
        budget: Bytes that distances may take in all.

    Returns:
        N if the whole table fits: one strip. Less than N: strips of that many columns, beside a
        state for every patch; each pair is still compared once. 0 if neither fits (or the strips
        would be so narrow that updating states costs more than comparing): image by image, each
        pair twice.
    """
    columns = budget // row_bytes
    if columns >= images:
        return images
    if state_rows is None:
        return 0
    # A strip's distances are held in both directions.
    width = (columns - state_rows) // 2
    return width if width >= max(1, state_rows // 8) else 0


def default_budget(images: int, row_bytes: int, state_rows: int | None) -> int:
    """Return the bytes that distances take unless told otherwise.

    The K state rows for every patch are needed in any case; strips half as wide keep updating them
    cheap. K tends to a bound that depends on the ratio only, so 2 K rows of N * P distances grow
    as the vectors do.
    """
    return _TABLE_BYTES if state_rows is None else row_bytes * min(images, 2 * state_rows)


@torch.no_grad()
def aggregate_distances(
    stored: PatchVectors,
    aggregation: Aggregation,
    *,
    queries: PatchVectors | None = None,
    leave_self_out: bool = False,
    memory_budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compare all patches of all images and aggregate the distances into scores.

    Args:
        stored: N images.
        aggregation: Takes the distances ``min over patches z of image j of 1 - cos(q, z)``.
        queries: Q images of P' patches from `as_queries`; default the stored images, whose
            distance to themselves is 0.
        leave_self_out: Make a stored image's distance to itself infinite.
        memory_budget: Bytes that distances may take; at least one row of N * P is always held.
            Default: see `default_budget`.
        progress: Called with the image pairs done and their total.

    Returns:
        ``[outputs, Q, P']`` float32.
    """
    report = progress or (lambda _done, _total: None)
    if memory_budget is None:
        memory_budget = default_budget(len(stored), stored.row_bytes, aggregation.state_rows)
    width = strip_width(len(stored), stored.row_bytes, aggregation.state_rows, memory_budget)
    if queries is None and width > 0:
        return _by_strips(stored, width, aggregation, report, leave_self_out=leave_self_out)
    asked = stored if queries is None else queries
    return _image_by_image(
        stored, asked, aggregation, report, memory_budget, leave_self_out=leave_self_out
    )


def as_queries(queries: Tensor | PatchVectors, stored: PatchVectors) -> PatchVectors:
    """Return queries as vectors to compare with the stored ones.

    Raises:
        ValueError: If they have other channels, or see `PatchVectors.of`.
    """
    if isinstance(queries, Tensor):
        queries = PatchVectors.of(queries.to(stored.device), stored.data.dtype)
    if queries.channels != stored.channels:
        msg = f"queries have {queries.channels} channels, the features {stored.channels}"
        raise ValueError(msg)
    return queries


def _own(vectors: PatchVectors, image: int, *, leave_self_out: bool) -> Tensor:
    """Return ``[P]`` distances to the nearest patch of the same image."""
    own = vectors.own[image]
    return torch.full_like(own, torch.inf) if leave_self_out else own


def _image_by_image(
    stored: PatchVectors,
    asked: PatchVectors,
    aggregation: Aggregation,
    report: Callable[[int, int], None],
    budget: int,
    *,
    leave_self_out: bool,
) -> Tensor:
    """Compare one query image with all stored ones at a time.

    Where stored vectors are fetched in pieces, each piece meets as many query images at a time as
    the budget has rows for.
    """
    count, patches = asked.data.shape[:2]
    scores = torch.empty(aggregation.outputs, count, patches, device=stored.device)
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
            scores[:, image] = aggregation.scores(image, aggregation.update(None, row, 0))
            report((image + 1) * len(stored), count * len(stored))
    return scores


def _tiles(stored: PatchVectors, images: range, most: int) -> list[range]:
    """Split query images into tiles of at most ``most`` that meet a fetched piece together."""
    return [
        range(start, min(start + most, piece.stop))
        for piece in stored.pieces(images, queries=True)
        for start in piece[::most]
    ]


def _by_strips(
    stored: PatchVectors,
    width: int,
    aggregation: Aggregation,
    report: Callable[[int, int], None],
    *,
    leave_self_out: bool,
) -> Tensor:
    """Compare every pair once, one strip of images at a time.

    The images of a strip have met all earlier ones, which their state sums up. Now they meet each
    other and all later images, which completes their scores; later images take their distances to
    the strip into their state.
    """
    count, patches = stored.data.shape[:2]
    scores = torch.empty(aggregation.outputs, count, patches, device=stored.device)
    state: Tensor | None = None
    if width < count and aggregation.state_rows is not None:
        state = stored.own.new_full((count, aggregation.state_rows, patches), torch.inf)
    for start in range(0, count, width):
        stop = min(start + width, count)
        ahead = stored.own.new_empty(stop - start, count - start, patches)
        behind = stored.own.new_empty(count - stop, stop - start, patches)
        for tile in _tiles(stored, range(start, stop), width):
            _compare_with_later_images(stored, tile, start, stop, ahead, behind)
            for image in tile:
                own = _own(stored, image, leave_self_out=leave_self_out)
                ahead[image - start, image - start] = own
                report((image + 1) * (2 * count - image) // 2, count * (count + 1) // 2)
        for image in range(start, stop):
            seen = state[image] if state is not None and start > 0 else None
            seen = aggregation.update(seen, ahead[image - start], start)
            scores[:, image] = aggregation.scores(image, seen)
        if state is not None:
            for image in range(stop, count):
                state[image] = aggregation.update(state[image], behind[image - stop], start)
        del ahead, behind  # before the next ones are allocated
    return scores


def _compare_with_later_images(
    stored: PatchVectors, tile: range, start: int, stop: int, ahead: Tensor, behind: Tensor
) -> None:
    """Compare a tile of a strip with all images that come after each of its images.

    Args:
        stored: All images.
        tile: The images that are compared.
        start: First image of the strip.
        stop: First image after it.
        ahead: ``[stop - start, N - start, P]`` distances from the strip's patches to each image.
        behind: ``[N - stop, stop - start, P]`` from later images' patches to each of the strip.
    """
    lefts = [stored.mirrored(image) for image in tile]
    # The two directions of a block go to different tables inside the strip and after it.
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
                    bits(ahead[row, here]).copy_(block.amin(2).t()).clamp_(min=0)
                    bits(mirror).copy_(block.amin(0)).clamp_(min=0)
