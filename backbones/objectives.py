"""What the embedded encoder is trained for, and how well it does on textures it has not seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.mosaics import CLEAN, DOUBTFUL, MARKED, MIXED, Mosaics, draw_mosaics
from backbones.procedural import texture_bank
from meds_plugin.rng import torch_generator

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
        A scalar >= 0.
    """
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
    """

    def __init__(self, seed: int, *, canvas: int, textures: int = 12) -> None:
        bank = texture_bank(textures, canvas, seed=seed, purpose="held-out")
        generator = torch_generator(seed, "pretrain", "held-out")
        self.batches = [
            draw_mosaics(
                each, generator, mosaics=len(each), views=12, size=IMAGE_SIZE, single=1, marked=0.5
            )
            for each in bank.split(3)
        ]

    @torch.no_grad()
    def score(self, network: nn.Module) -> tuple[float, float]:
        """Return AUROC over images (by the largest patch distance) and over patches."""
        device = next(network.parameters()).device
        scores = []
        for batch in self.batches:
            features = patch_features(network, batch.images.to(device)).cpu()
            for mosaic in batch.mosaic.unique():
                own = batch.mosaic == mosaic
                scores.append(_find(F.normalize(features[own], dim=-1), batch.marks[own]))
        known = torch.tensor([score for score in scores if score is not None])
        image, patch = known.mean(dim=0).tolist()
        return image, patch


def _find(features: Tensor, marks: Tensor) -> tuple[float, float] | None:
    """Store the first half of the clean views, search with all other views."""
    clean = (marks == CLEAN).all(dim=1).nonzero()[:, 0]
    stored = clean[: (len(clean) + 1) // 2]
    rest = torch.ones(len(marks), dtype=torch.bool)
    rest[stored] = False
    defect = marks[rest] == MARKED
    images = defect.any(dim=1)
    if not len(stored) or not bool(images.any()) or bool(images.all()):
        return None
    distance = 1 - (features[rest] @ features[stored].flatten(0, 1).T).amax(dim=-1)
    sure = marks[rest] != DOUBTFUL
    return _auroc(distance.amax(dim=1), images), _auroc(distance[sure], defect[sure])


def _auroc(scores: Tensor, positive: Tensor) -> float:
    """Return the chance that a positive scores higher than a negative; ties do not matter here."""
    ranks = scores.argsort().argsort().double() + 1
    count, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
