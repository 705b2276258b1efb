"""What the embedded encoder is trained for, and how well it does on textures it has not seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.mosaics import IGNORED, MARKED, Mosaics, draw_mosaics
from backbones.procedural import texture_bank
from meds_plugin.rng import torch_generator

__all__ = ["IMAGE_SIZE", "HeldOut", "contrast", "detection", "patch_features"]

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


def contrast(
    features: Tensor,
    batch: Mosaics,
    *,
    order: Tensor,
    anchors: int,
    temperature: float,
    spread: float,
) -> Tensor:
    """Return the loss: how little patches resemble their likes in the other view.

    Args:
        features: ``[V, P, D]``.
        batch: What the patches show.
        order: A permutation of all V * P patches; the first usable ones are the anchors.
        anchors: Their number at most.
        temperature: Divides the cosines.
        spread: See `PretrainSettings`.

    Returns:
        A scalar >= 0. Doubtful patches, and those of the same group that are not the same label in
        another view, count neither for nor against.
    """
    views, patches = batch.labels.shape
    labels, groups = batch.labels.flatten(), batch.groups.flatten()
    view = torch.arange(views, device=labels.device).repeat_interleave(patches)
    usable = order[labels[order] >= 0][:anchors]
    unit = F.normalize(features.flatten(0, 1), dim=1)
    similar = unit[usable] @ unit.T / temperature
    same_label = labels[usable, None] == labels
    same_view = view[usable, None] == view
    positive = same_label & ~same_view
    same_group = (groups[usable, None] == groups) & (labels != MARKED)
    void = (same_group & ~positive) | (labels == IGNORED)
    everything = torch.logsumexp(similar.masked_fill(void, -1e4), dim=1)
    nearest = torch.logsumexp(similar.masked_fill(~positive, -1e4), dim=1)
    count = positive.sum(dim=1)
    mean = similar.where(positive, 0).sum(dim=1) / count.clamp(min=1)
    each = everything - (1 - spread) * nearest - spread * mean
    return each.where(count > 0, 0).sum() / (count > 0).sum().clamp(min=1)


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
    labels = batch.labels.unflatten(0, (-1, 2))
    similar = first @ second.mT
    of_first = similar.masked_fill((labels[:, 1] < 0)[:, None], -1).amax(dim=2)
    of_second = similar.masked_fill((labels[:, 0] < 0)[:, :, None], -1).amax(dim=1)
    excess = sharpness * (torch.stack([of_first, of_second], dim=1) - threshold)
    clean, marked = F.softplus(-excess[labels >= 0]), F.softplus(excess[labels == MARKED])
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
                scores.append(_find(F.normalize(features[own], dim=-1), batch.labels[own]))
        known = torch.tensor([score for score in scores if score is not None])
        image, patch = known.mean(dim=0).tolist()
        return image, patch


def _find(features: Tensor, labels: Tensor) -> tuple[float, float] | None:
    """Store the first half of the clean views, search with all other views."""
    clean = (labels >= 0).all(dim=1).nonzero()[:, 0]
    stored = clean[: (len(clean) + 1) // 2]
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[stored] = False
    defect = labels[rest] == MARKED
    images = defect.any(dim=1)
    if not len(stored) or not bool(images.any()) or bool(images.all()):
        return None
    distance = 1 - (features[rest] @ features[stored].flatten(0, 1).T).amax(dim=-1)
    sure = labels[rest] != IGNORED
    return _auroc(distance.amax(dim=1), images), _auroc(distance[sure], defect[sure])


def _auroc(scores: Tensor, positive: Tensor) -> float:
    """Return the chance that a positive scores higher than a negative; ties do not matter here."""
    ranks = scores.argsort().argsort().double() + 1
    count, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
