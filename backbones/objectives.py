"""What the embedded encoder is trained for, and how well it does on textures it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.mosaics import CLEAN, DOUBTFUL, MARKED, MIXED, Mosaics, draw_mosaics
from backbones.procedural import texture_bank
from meds_plugin.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["IMAGE_SIZE", "HeldOut", "detection", "patch_features", "recognition"]

IMAGE_SIZE = 128  # the embedded encoder's weights are made at


def patch_features(
    network: nn.Module, images: Tensor, *, corner: tuple[int, int] = (0, 0)
) -> Tensor:
    """Return the embedded encoder's memory features, with gradients, also of smaller images.

    Args:
        network: The encoder's transformer, made for 128 pixels.
        images: Normalised, ``[B, 3, S, S]``, S at most 128.
        corner: Row and column of the patch grid that the images' first patch stands at.

    Returns:
        ``[B, P, D]``; for 128 pixels the same as `ViTEncoder.features`.
    """
    vit: Any = network
    tokens = vit.patch_embed.proj(images)
    height, width = tokens.shape[2:]
    side = IMAGE_SIZE // 8
    positions = vit.pos_embed.view(1, side, side, -1)
    top, left = corner
    positions = positions[:, top : top + height, left : left + width].flatten(1, 2)
    tokens = tokens.flatten(2).transpose(1, 2) + positions
    tokens = torch.cat([vit.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    features: Tensor = vit.norm(vit.blocks(tokens))[:, 1:]
    return features


def recognition(features: Tensor, head: nn.Module, batch: Mosaics) -> Tensor:
    """Return the loss of telling, patch by patch, which texture of the bank a patch shows.

    Args:
        features: ``[V, P, D]``.
        head: Maps D values to one for each texture.
        batch: What the patches show; mixed ones do not count.

    Returns:
        A scalar >= 0; 0 where all patches are mixed.
    """
    if bool((batch.textures == MIXED).all()):
        return 0.0 * features.sum()
    return F.cross_entropy(
        head(features.flatten(0, 1)), batch.textures.flatten(), ignore_index=MIXED
    )


def detection(features: Tensor, batch: Mosaics, *, threshold: float, sharpness: float) -> Tensor:
    """Return the loss of telling marked patches by what the memory does: the nearest clean patch.

    Args:
        features: ``[V, P, D]``, two views a mosaic.
        batch: What the patches show.
        threshold: Cosine to the nearest clean patch of the other view that clean patches should
            stay above, and marked ones below.
        sharpness: Multiplies the distance to the threshold.

    Returns:
        A scalar >= 0, the mean over clean patches and that over marked ones, added.
    """
    first, second = F.normalize(features, dim=-1).unflatten(0, (-1, 2)).unbind(1)
    marks = batch.marks.unflatten(0, (-1, 2))
    similar = first @ second.mT
    of_first = similar.masked_fill((marks[:, 1] != CLEAN)[:, None], -1).amax(dim=2)
    of_second = similar.masked_fill((marks[:, 0] != CLEAN)[:, :, None], -1).amax(dim=1)
    excess = sharpness * (torch.stack([of_first, of_second], dim=1) - threshold)
    clean, marked = F.softplus(-excess[marks == CLEAN]), F.softplus(excess[marks == MARKED])
    return clean.sum() / max(1, len(clean)) + marked.sum() / max(1, len(marked))


class HeldOut:
    """Foreign marks on textures that are not trained on, to be found by the nearest stored patch.

    Args:
        seed: Of the training run.
        canvas: Side of a texture in pixels.
        textures: Their number.
        views: Stored ones and ones to judge, so many of each a texture on average; half of the
            latter have marks.
    """

    def __init__(self, seed: int, *, canvas: int, textures: int = 12, views: int = 16) -> None:
        bank = texture_bank(textures, canvas, seed=seed, purpose="held-out")
        self.stored, self.judged = (
            draw_mosaics(
                bank,
                torch_generator(seed, "pretrain", "held-out", purpose),
                mosaics=textures * views // 2,
                size=IMAGE_SIZE,
                regions=1,
                marked=marked,
                aligned=0.0,
            )
            for purpose, marked in (("stored", 0.0), ("judged", 0.2))
        )

    @torch.no_grad()
    def score(self, network: nn.Module) -> tuple[float, float]:
        """Return AUROC over images (by the largest patch distance) and over patches.

        Both are means over textures, in [0, 1]. Images with no mark but doubtful ones do not
        count.
        """
        stored, judged = (_features(network, batch) for batch in (self.stored, self.judged))
        shown_by_stored, shown = (_texture(batch) for batch in (self.stored, self.judged))
        found = []
        for texture in shown.unique():
            memory = stored[shown_by_stored == texture].flatten(0, 1)
            own = shown == texture
            if len(memory):
                found.append(_find(judged[own], self.judged.marks[own], memory))
        return _mean(each[0] for each in found), _mean(each[1] for each in found)


def _features(network: nn.Module, batch: Mosaics) -> Tensor:
    device = next(network.parameters()).device
    parts = [patch_features(network, part.to(device)).cpu() for part in batch.images.split(32)]
    return F.normalize(torch.cat(parts), dim=-1)


def _texture(batch: Mosaics) -> Tensor:
    """Return the texture that each view shows all over, ``[V]``."""
    return batch.textures.amax(dim=1)


def _find(features: Tensor, marks: Tensor, memory: Tensor) -> tuple[float | None, float | None]:
    """Return the AUROC of images and of patches by the distance to the nearest stored patch.

    Args:
        features: ``[V, P, D]`` of unit length.
        marks: ``[V, P]``.
        memory: ``[M, D]`` of unit length.

    Returns:
        ``None`` where there are not both, clean ones and marked ones.
    """
    distance = 1 - (features @ memory.T).amax(dim=-1)
    marked, sure = marks == MARKED, marks != DOUBTFUL
    told = marked.any(dim=1) | sure.all(dim=1)
    return (
        _auroc(distance.amax(dim=1)[told], marked.any(dim=1)[told]),
        _auroc(distance[sure], marked[sure]),
    )


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Return the chance that a positive scores higher than a negative; ties do not matter here."""
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return None
    ranks = scores.argsort().argsort().double() + 1
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
