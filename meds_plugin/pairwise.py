"""Distances between the patches of all pairs of images: each pair once, in bounded memory.

Three ways to walk the pairs give the same numbers (see `strip_width`). Distances come straight out
of the matrix product, thanks to three more channels: ``[-a, 1, e(a), 1] . [b, 1, 1, e(b)]`` with
``e(x) = (|x|^2 - 1) / 2``, what rounding a unit vector to the products' type did to its length.
That is ``|a - b|^2 / 2 = 1 - cos(a, b)``, rounded relative to itself: half-precision products keep
small distances apart, which cosines near 1 would not. (In float32, e is left at 0.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MEMORY_BUDGET", "PatchVectors", "Reducer", "bits", "scan", "strip_width"]

MEMORY_BUDGET = 1 << 30

# Elements of one product block. On a CPU it has to stay in cache until its minima are taken (larger
# blocks measured up to 15 % slower); a GPU wants work that fills it.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26
_EPSILON = 1e-12  # of the reference's normalisation
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


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


class PatchVectors:
    """Unit vectors of patches, ready for products that are cosine distances.

    Args:
        features: ``[N, P, D]`` finite features of any length; a zero vector stays zero (its cosine
            with everything is 0).
        dtype: Type of the products.

    Attributes:
        data: ``[N, P, D + 3 + padding]``, contiguous.
        own: ``[N, P]`` distance of each patch to itself: 0, or 1 for a zero vector.

    Raises:
        ValueError: On a wrong shape, an empty tensor or a value that is not finite.
    """

    def __init__(self, features: Tensor, dtype: torch.dtype = torch.float32) -> None:
        if features.ndim != 3 or features.numel() == 0:
            msg = f"features must be a non-empty [N, P, D] tensor, got {tuple(features.shape)}"
            raise ValueError(msg)
        if not dtype.is_floating_point or dtype.itemsize not in _BITS:
            msg = f"products need a floating point type of 16, 32 or 64 bits, got {dtype}"
            raise ValueError(msg)
        count, patches, self.channels = features.shape
        # Tensor cores want rows of 16 bytes; a CPU's products do not care.
        align = 1 if features.device.type == "cpu" else 16
        width = -(-(self.channels + 3) // align) * align
        self.data = torch.zeros(count, patches, width, dtype=dtype, device=features.device)
        self.data[..., self.channels : self.channels + 2] = 1
        exact = torch.promote_types(dtype, torch.float32)
        own = []
        for index, image in enumerate(features):
            norms = torch.linalg.vector_norm(image.to(exact), dim=-1, keepdim=True)
            if not bool(torch.isfinite(norms).all()):
                msg = f"image {index} has features that are not finite (or too large to square)"
                raise ValueError(msg)
            unit = self.data[index, :, : self.channels]
            unit.copy_(image / norms.clamp(min=_EPSILON))
            if dtype.itemsize < 4:
                excess = torch.linalg.vector_norm(unit.to(exact), dim=-1).square().sub(1).div(2)
                # A vector too short to be made a unit vector keeps its cosines.
                self.data[index, :, self.channels + 2] = excess.where(norms[:, 0] >= _EPSILON, 0)
            own.append(1 - (norms[:, 0] / _EPSILON).clamp(max=1).square())
        self.own = torch.stack(own).to(dtype)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    def mirrored(self, image: int) -> Tensor:
        """Return ``[P, D + 3 + padding]`` whose products with `data` are distances."""
        left = self.data[image].clone()
        left[:, : self.channels].neg_()
        left[:, self.channels + 1] = self.data[image, :, self.channels + 2]
        left[:, self.channels + 2] = 1
        return left

    def blocks(self, left: Tensor, columns: range) -> Iterator[tuple[slice, Tensor]]:
        """Yield the distances from ``left`` to all patches of some images, as bit patterns.

        Non-negative floats order like their bits, and integer minima are several times cheaper on a
        CPU. Values a rounding error below 0 come out as negative integers: clamp minima at 0.

        Args:
            left: ``[P', D + 3 + padding]`` from `mirrored`.
            columns: The images.

        Yields:
            The block's images, and ``[P', images, P]`` in a buffer that the next block overwrites.
        """
        rows, patches, device = len(left), self.data.shape[1], left.device.type
        elements = _BLOCK_ELEMENTS.get(device, _BLOCK_ELEMENTS_ELSEWHERE)
        step = min(max(1, elements // (rows * patches)), max(1, len(columns)))
        buffer = left.new_empty(rows * step * patches)
        for start in columns[::step]:
            stop = min(start + step, columns.stop)
            right = self.data[start:stop].flatten(0, 1)
            out = buffer[: rows * len(right)].view(rows, len(right))
            torch.mm(left, right.t(), out=out)
            yield slice(start, stop), bits(out).view(rows, stop - start, patches)


def bits(values: Tensor) -> Tensor:
    """View non-negative floats as integers of the same order."""
    return values.view(_BITS[values.element_size()])


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


@torch.no_grad()
def scan(
    features: Tensor,
    reducer: Reducer,
    *,
    queries: Tensor | None = None,
    leave_self_out: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_budget: int = MEMORY_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compare all patches of all images and reduce the distances to scores.

    Args:
        features: ``[N, P, D]`` stored images.
        reducer: What to make of the distances ``min over patches z of image j of 1 - cos(q, z)``.
        queries: ``[Q, P', D]``; default the stored images, whose distance to themselves is 0.
        leave_self_out: Make an image's distance to itself infinite.
        dtype: Type of the products.
        memory_budget: Bytes that distances may take; at least one row of N * P is always held.
        progress: Called with the image pairs done and their number.

    Returns:
        ``[outputs, Q, P']`` float32.

    Raises:
        ValueError: See `PatchVectors`.
    """
    stored = PatchVectors(features, dtype)
    report = progress or (lambda _done, _total: None)
    if queries is not None:
        if queries.ndim == 3 and queries.shape[2] != features.shape[2]:
            msg = f"queries have {queries.shape[2]} channels, the features {features.shape[2]}"
            raise ValueError(msg)
        asked = PatchVectors(queries.to(features.device), dtype)
        return _image_by_image(stored, asked, reducer, report, leave_self_out=False)
    row_bytes = stored.data.shape[0] * stored.data.shape[1] * dtype.itemsize
    width = strip_width(len(stored), row_bytes, reducer.kept, memory_budget)
    if width == 0:
        return _image_by_image(stored, stored, reducer, report, leave_self_out=leave_self_out)
    return _by_strips(stored, width, reducer, report, leave_self_out=leave_self_out)


def _own(vectors: PatchVectors, image: int, *, leave_self_out: bool) -> Tensor:
    """Return ``[P]`` distances to the nearest patch of the same image."""
    own = vectors.own[image]
    return torch.full_like(own, torch.inf) if leave_self_out else own


def _image_by_image(
    stored: PatchVectors,
    asked: PatchVectors,
    reducer: Reducer,
    report: Callable[[int, int], None],
    *,
    leave_self_out: bool,
) -> Tensor:
    """Compare one query image with all stored ones at a time."""
    count, patches = asked.data.shape[:2]
    scores = torch.empty(reducer.outputs, count, patches, device=asked.data.device)
    row = asked.data.new_empty(len(stored), patches)
    for image in range(count):
        for columns, block in stored.blocks(asked.mirrored(image), range(len(stored))):
            bits(row)[columns] = block.amin(2).t()
        bits(row).clamp_(min=0)
        if asked is stored:
            row[image] = _own(stored, image, leave_self_out=leave_self_out)
        scores[:, image] = reducer.finish(image, None, row, 0)
        report((image + 1) * len(stored), count * len(stored))
    return scores


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
    scores = torch.empty(reducer.outputs, count, patches, device=stored.data.device)
    state: Tensor | None = None
    if width < count and reducer.kept is not None:
        state = stored.data.new_full((count, reducer.kept, patches), torch.inf)
    for start in range(0, count, width):
        stop = min(start + width, count)
        ahead = stored.data.new_empty(stop - start, count - start, patches)
        behind = stored.data.new_empty(count - stop, stop - start, patches)
        for image in range(start, stop):
            row = image - start
            left = stored.mirrored(image)
            ahead[row, row] = _own(stored, image, leave_self_out=leave_self_out)
            for columns, block in stored.blocks(left, range(image + 1, stop)):
                others = slice(columns.start - start, columns.stop - start)
                _store(block, ahead[row, others], ahead[others, row])
            for columns, block in stored.blocks(left, range(stop, count)):
                here = slice(columns.start - start, columns.stop - start)
                others = slice(columns.start - stop, columns.stop - stop)
                _store(block, ahead[row, here], behind[others, row])
            report((image + 1) * (2 * count - image) // 2, count * (count + 1) // 2)
        for image in range(start, stop):
            seen = state[image] if state is not None and start > 0 else None
            scores[:, image] = reducer.finish(image, seen, ahead[image - start], start)
        if state is not None:
            for image in range(stop, count):
                state[image] = reducer.merge(state[image], behind[image - stop], start)
    return scores


def _store(block: Tensor, forward: Tensor, mirror: Tensor) -> None:
    """Write a block's nearest distances, seen from either side, into two ``[images, P]`` tables."""
    bits(forward).copy_(block.amin(2).t()).clamp_(min=0)
    bits(mirror).copy_(block.amin(0)).clamp_(min=0)
