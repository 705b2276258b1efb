"""One vector for what an image shows, and one for what is odd about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from meds_plugin.memory.patch_vectors import PatchVectors
    from meds_plugin.tiles import TileLayout

__all__ = ["Embeddings", "embed", "of_whole_images"]

_TOP = 0.01  # share of an image's patches that are odd


class Embeddings(NamedTuple):
    """Unit vectors of images; the products of two are cosines. float16, on the CPU.

    Attributes:
        image: ``[N, D]`` the mean of all patches: like images are near.
        peak: ``[N, D]`` the mean of the most suspicious patches: like defects are near.
    """

    image: Tensor
    peak: Tensor


@torch.no_grad()
def embed(vectors: PatchVectors, maps: Tensor, images: Tensor | None = None) -> Embeddings:
    """Sum up the patches of images.

    Args:
        vectors: Of the N images of a category.
        maps: ``[N, P]`` their memory scores, higher = more anomalous.
        images: Which of them; default: all.
    """
    count = max(1, int(_TOP * maps.shape[1]))
    means, peaks = [], []
    for image in range(len(maps)) if images is None else images.tolist():
        patches = vectors.data[image, :, : vectors.channels].float()
        odd = maps[image].topk(count).indices.to(patches.device)
        means.append(F.normalize(patches.mean(0), dim=0).half().cpu())
        peaks.append(F.normalize(patches[odd].mean(0), dim=0).half().cpu())
    return Embeddings(torch.stack(means), torch.stack(peaks))


def of_whole_images(tiles: Embeddings, scores: Tensor, layout: TileLayout) -> Embeddings:
    """Return the embeddings of images, given those of their tiles.

    Args:
        tiles: Of all T tiles.
        scores: ``[T]`` memory scores; the highest one's tile has an image's most suspicious
            patches.
        layout: Whose tiles they are.
    """
    means, peaks = [], []
    for image in range(len(layout.sizes)):
        own = torch.tensor(layout.tiles([image]))
        means.append(F.normalize(tiles.image[own].float().mean(0), dim=0).half())
        peaks.append(tiles.peak[own[scores[own].argmax()]])
    return Embeddings(torch.stack(means), torch.stack(peaks))
