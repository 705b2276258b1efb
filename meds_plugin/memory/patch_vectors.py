"""Unit vectors of patches whose products are distances, stored wherever they fit.

Three extra channels make the matrix product return distances directly:
``[-a, 1, e(a), 1] . [b, 1, 1, e(b)]`` with ``e(x) = (|x|^2 - 1) / 2``, which corrects for the
length of unit vectors rounded to the products' type. That is ``|a - b|^2 / 2 = 1 - cos(a, b)``,
rounded relative to itself: half-precision products tell small distances apart, which cosines near 1
would not. (In float32, e is left at 0.)
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PatchVectors", "bits", "blocks", "vector_bytes"]

# Elements of one product block. On a CPU it has to stay in cache until its minima are taken (larger
# blocks measured up to 15 % slower); a GPU needs work that fills it.
_BLOCK_ELEMENTS = {"cpu": 1 << 18}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26
# Bytes of vectors moved to the device at a time when they are stored elsewhere.
_FETCHED_BYTES = 1 << 28
_EPSILON = 1e-12  # of the reference's normalisation
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class PatchVectors:
    """Unit vectors of patches, ready for products that are cosine distances.

    A new object has room for the vectors; `put` fills it. Vectors may be stored off the device
    that computes, in host memory or in a file. They are then fetched in pieces, each of which
    meets many images before the next one comes.

    Args:
        count: N images.
        patches: P patches of each.
        channels: D.
        dtype: Type of the products.
        device: Where products are computed.
        home: Where the vectors are stored; default: on the device.
        file: An existing file of at least `vector_bytes` bytes to store them in instead.

    Attributes:
        data: ``[N, P, D + 3 + padding]``, contiguous.
        own: ``[N, P]`` distance of each patch to itself: 0, or 1 for a zero vector.
        device: Where products are computed.
        channels: D.

    Raises:
        ValueError: If the products' type is not a floating point type.
    """

    def __init__(
        self,
        count: int,
        patches: int,
        channels: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device,
        home: torch.device | None = None,
        file: Path | None = None,
    ) -> None:
        if not dtype.is_floating_point or dtype.itemsize not in _BITS:
            msg = f"products need a floating point type of 16, 32 or 64 bits, got {dtype}"
            raise ValueError(msg)
        home = home or device
        shape = (count, patches, _width(channels, device))
        if file is None:
            self.data = torch.empty(shape, dtype=dtype, device=home)
        else:
            size = shape[0] * shape[1] * shape[2]
            self.data = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
        self.own = torch.empty(count, patches, dtype=dtype, device=device)
        self.device, self.channels = device, channels
        self._fetched = file is not None or home != device

    @classmethod
    def of(
        cls, features: Tensor | PatchVectors, dtype: torch.dtype = torch.float32
    ) -> PatchVectors:
        """Return the vectors of features, stored on their device.

        Args:
            features: ``[N, P, D]`` finite features of any length; a zero vector stays zero (its
                cosine with everything is 0). `PatchVectors` are returned as they are.
            dtype: Type of the products.

        Raises:
            ValueError: On a wrong shape, an empty tensor or a value that is not finite.
        """
        if isinstance(features, PatchVectors):
            return features
        if features.ndim != 3 or features.numel() == 0:
            msg = f"features must be a non-empty [N, P, D] tensor, got {tuple(features.shape)}"
            raise ValueError(msg)
        vectors = cls(*features.shape, dtype=dtype, device=features.device)
        vectors.put(range(len(features)), features)
        return vectors

    def put(self, images: range, features: Tensor) -> None:
        """Store the vectors of consecutive images.

        Args:
            images: Their indices.
            features: ``[len(images), P, D]`` finite.

        Raises:
            ValueError: If a value is not finite.
        """
        exact = torch.promote_types(self.data.dtype, torch.float32)
        for index, image in zip(images, features, strict=True):
            norms = torch.linalg.vector_norm(image.to(exact), dim=-1, keepdim=True)
            if not bool(torch.isfinite(norms).all()):
                msg = f"image {index} has features that are not finite (or too large to square)"
                raise ValueError(msg)
            row = torch.zeros_like(self.data[index], device=image.device)
            row[:, self.channels : self.channels + 2] = 1
            unit = row[:, : self.channels]
            unit.copy_(image / norms.clamp(min=_EPSILON))
            if self.data.dtype.itemsize < 4:
                excess = torch.linalg.vector_norm(unit.to(exact), dim=-1).square().sub(1).div(2)
                # A vector too short to be scaled to length 1 keeps its cosines.
                row[:, self.channels + 2] = excess.where(norms[:, 0] >= _EPSILON, 0)
            self.data[index] = row.to(self.data.device)
            self.own[index] = 1 - (norms[:, 0] / _EPSILON).clamp(max=1).square()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    @property
    def patches(self) -> int:
        """Patches of an image, P."""
        return self.data.shape[1]

    @property
    def row_bytes(self) -> int:
        """Bytes of one distance for every patch of every image."""
        return self.own.nbytes

    def take(self, images: Tensor) -> PatchVectors:
        """Return a copy of some images, e.g. one process's share of the queries."""
        part = copy.copy(self)
        part.data, part.own = self.data[images.to(self.data.device)], self.own[images]
        return part

    def take_patches(self, images: Tensor, patches: Tensor) -> PatchVectors:
        """Return a copy of single patches as queries, as many to an "image" as before.

        Args:
            images: ``[R]`` the image of each patch.
            patches: ``[R]`` its place in the image.

        Returns:
            ``ceil(R / P)`` images of P patches, in order; the last patch is repeated to fill up.
        """
        missing = -len(images) % self.patches
        images, patches = (torch.cat([x, x[-1:].expand(missing)]) for x in (images, patches))
        part = copy.copy(self)
        home = self.data.device
        part.data = self.data[images.to(home), patches.to(home)].unflatten(0, (-1, self.patches))
        part.own = self.own[images, patches].view(-1, self.patches)
        return part

    def pieces(self, images: range, *, queries: bool = False) -> Iterator[range]:
        """Split images into the pieces that are fetched together; a single one if all are at hand.

        Args:
            images: Consecutive images.
            queries: Split the query side instead: image by image if all vectors are at hand, else
                as many queries at a time as stored vectors, to fetch each of those less often.
        """
        if self._fetched:
            step = max(1, _FETCHED_BYTES // max(1, self.data[0].nbytes))
        else:
            step = 1 if queries else max(1, len(images))
        for start in images[::step]:
            yield range(start, min(start + step, images.stop))

    def fetch(self, images: range) -> Tensor:
        """Return the vectors ``[len(images), P, D + 3 + padding]`` on the device."""
        return self.data[images.start : images.stop].to(self.device)

    def mirrored(self, image: int) -> Tensor:
        """Return ``[P, D + 3 + padding]`` whose products with `data` are distances."""
        left = self.data[image].to(self.device, copy=True)
        excess = left[:, self.channels + 2].clone()
        left[:, : self.channels].neg_()
        left[:, self.channels + 1] = excess
        left[:, self.channels + 2] = 1
        return left


def blocks(left: Tensor, right: Tensor, first: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the distances from ``left`` to all patches of some images, as bit patterns.

    Non-negative floats order like their bits, and integer minima are several times cheaper on a
    CPU. Distances a rounding error below 0 appear as negative integers: clamp minima at 0.

    Args:
        left: ``[P', D + 3 + padding]`` from `PatchVectors.mirrored`.
        right: ``[n, P, D + 3 + padding]`` from `PatchVectors.fetch`.
        first: Index of the first of these images.

    Yields:
        The block's images, and ``[P', images, P]`` in a buffer that the next block overwrites.
    """
    rows, patches = len(left), right.shape[1]
    elements = _BLOCK_ELEMENTS.get(left.device.type, _BLOCK_ELEMENTS_ELSEWHERE)
    step = min(max(1, elements // (rows * patches)), max(1, len(right)))
    buffer = left.new_empty(rows * step * patches)
    for start in range(0, len(right), step):
        part = right[start : start + step].flatten(0, 1)
        out = buffer[: rows * len(part)].view(rows, len(part))
        torch.mm(left, part.t(), out=out)
        stop = start + len(part) // patches
        yield slice(first + start, first + stop), bits(out).view(rows, stop - start, patches)


def bits(values: Tensor) -> Tensor:
    """View non-negative floats as integers of the same order."""
    return values.view(_BITS[values.element_size()])


def vector_bytes(
    count: int, patches: int, channels: int, *, dtype: torch.dtype, device: torch.device
) -> int:
    """Return the size of the `PatchVectors` in bytes."""
    return count * patches * _width(channels, device) * dtype.itemsize


def _width(channels: int, device: torch.device) -> int:
    # Tensor cores want rows of a multiple of 16 elements; a CPU's products do not care.
    align = 1 if device.type == "cpu" else 16
    return -(-(channels + 3) // align) * align
