"""Unit memory features of images, wherever they fit: on the device, the host, or in a file."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from meds_plugin.distributed.ranks import gather_in_order, rank_and_world, shard
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.memory.patch_vectors import PatchVectors, vector_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

__all__ = ["memory_vectors"]

_DEVICE_SHARE = 0.5  # of a device's free memory; distances and the encoder need some, too


def memory_vectors(
    images: EncodedImages,
    indices: Sequence[int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    together: bool = False,
    progress: str | None = None,
) -> tuple[PatchVectors, tuple[int, int]]:
    """Encode some images for the memory, a batch at a time.

    Only the unit vectors are stored, in the type of the products: on the device if they need at
    most half of its free memory, else in the host's memory, or in a file of the cache's folder if
    they need more than ``cache.gb``.

    Args:
        images: The images and the detector.
        indices: Which images, e.g. those of a category.
        dtype: Type of the products.
        device: Where the detector is.
        together: Every rank calls this with the same images; each encodes a share, and all get all.
        progress: Name of a progress bar; ``None`` shows none.

    Returns:
        The vectors, and the patch grid (h, w).

    Raises:
        ValueError: If there are no images, or features are not finite.
    """
    vectors: PatchVectors | None = None
    grid = (0, 0)
    encode = _by_all_ranks if together else EncodedImages.features
    for places, features, found in encode(images, indices, device=device, progress=progress):
        if vectors is None:
            vectors, grid = _empty(images, len(indices), features, dtype), found
        vectors.put(places, features)
    if vectors is None:
        msg = "there are no images to encode for the memory"
        raise ValueError(msg)
    return vectors, grid


def _by_all_ranks(
    images: EncodedImages, indices: Sequence[int], *, device: torch.device, progress: str | None
) -> Iterator[tuple[range, Tensor, tuple[int, int]]]:
    """Yield the same as `EncodedImages.features`, from one batch of every rank at a time."""
    size, (rank, world) = images.reader.batch_size, rank_and_world()
    starts = range(0, len(indices), size)
    shares = [[starts[place] for place in shard(len(starts), r, world)] for r in range(world)]
    wanted = [index for start in shares[rank] for index in indices[start : start + size]]
    mine = images.features(wanted, device=device, progress=progress)
    for step in range(max(map(len, shares))):
        part = next(mine, None)
        found = gather_in_order(None if part is None else part[1].unflatten(1, part[2]))
        sent = [share[step] for share in shares if step < len(share)]
        counts = [min(size, len(indices) - start) for start in sent]
        for start, features in zip(sent, found.split(counts), strict=True):
            places = range(start, start + len(features))
            yield places, features.flatten(1, 2).to(device), (found.shape[1], found.shape[2])


def _empty(images: EncodedImages, count: int, features: Tensor, dtype: torch.dtype) -> PatchVectors:
    """Allocate the vectors of all images, given the features ``[B, P, D]`` of the first."""
    device = home = features.device
    _, patches, channels = features.shape
    size = vector_bytes(count, patches, channels, dtype=dtype, device=device)
    if device.type == "cuda" and size > _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        home = torch.device("cpu")
    folder, limit = images.cache.folder, images.cache.settings.gb * 1e9
    with contextlib.ExitStack() as stack:
        file = None
        if home.type == "cpu" and folder is not None and size > limit:
            file = stack.enter_context(folder.scratch(size))
        return PatchVectors(
            count, patches, channels, dtype=dtype, device=device, home=home, file=file
        )
