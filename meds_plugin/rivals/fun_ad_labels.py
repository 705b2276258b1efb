"""Pseudo labels of patches, from their distance to images that look normal, and their losses.

Source:
    FUN-AD (WACV 2025).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

from meds_plugin.rivals.search import nearest
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "PseudoLabelLosses",
    "bank_distances",
    "check_scores_finite",
    "mutual_pairs",
    "noise_deviation",
    "normal_images",
    "pseudo_label_losses",
]

# A patch that is itself in the bank is closer to it than this squared distance.
_SELF = 1e-2


class PseudoLabelLosses(NamedTuple):
    """Losses of a batch.

    Attributes:
        anomalous: Mean cross-entropy of the patches labelled anomalous, 0 if there is none.
        normal: Of the others.
        smoothness: Mean of half the difference between the scores of a pair, 0 without pairs.
    """

    anomalous: Tensor
    normal: Tensor
    smoothness: Tensor


def normal_images(scores: Tensor, below: float) -> Tensor:
    """Return the images that look normal, all where all scores are equal.

    Args:
        scores: ``[N]``, higher = more anomalous.
        below: Share of the range of the scores under which an image looks normal.

    Returns:
        Their places, ascending, on the CPU.

    Raises:
        UserError: If scores are not finite.
    """
    return (_unit_range(scores) < below).nonzero()[:, 0].cpu()


@torch.no_grad()
def bank_distances(vectors: Tensor, bank: Tensor) -> Tensor:
    """Return the distance of a batch's patches to a bank, as a share of their range.

    Args:
        vectors: ``[M, D]`` all patches of the batch.
        bank: ``[K, D]``; a patch that is in it is compared with its second nearest.

    Returns:
        ``[M]`` in [0, 1], higher = more anomalous; 0 where all are equal.

    Raises:
        UserError: If distances are not finite.
    """
    squares, _ = nearest(vectors, bank, 2)
    squares[squares < _SELF] = 0.0
    first = squares[:, 0]
    return _unit_range(torch.where(first == 0, squares[:, -1], first))


@torch.no_grad()
def mutual_pairs(vectors: Tensor) -> Tensor:
    """Return the pairs of vectors that are each other's nearest.

    Args:
        vectors: ``[M, D]``.

    Returns:
        ``[2, K]`` places, ascending along the first row, which has the smaller one of a pair.
    """
    places = torch.arange(len(vectors), device=vectors.device)
    found = nearest(vectors, vectors, 2)[1]
    other = torch.where(found[:, 0] == places, found[:, -1], found[:, 0])
    first = places[(other[other] == places) & (places < other)]
    return torch.stack([first, other[first]])


def noise_deviation(batch: Tensor) -> Tensor:
    """Return the standard deviation ``[D]`` of the noise for a batch ``[B, P, D]``.

    It is the largest, over positions, of that over the images; 0 for a single image.
    """
    if len(batch) < 2:
        return batch.new_zeros(batch.shape[2])
    return batch.std(0).amax(0)


def pseudo_label_losses(scores: Tensor, anomalous: Tensor, pairs: Tensor) -> PseudoLabelLosses:
    """Return the losses of scores.

    Args:
        scores: ``[B, P]`` in [0, 1].
        anomalous: ``[B, P]`` labels, bool.
        pairs: ``[2, K]`` places among the B * P patches.
    """
    # Not from logits: a score that rounds to 0 or 1 has no gradient in the original either.
    entropy = F.binary_cross_entropy(scores, anomalous.to(scores), reduction="none")
    first, second = scores.flatten()[pairs]
    return PseudoLabelLosses(
        (entropy * anomalous).sum() / anomalous.sum().clamp(min=1),
        (entropy * ~anomalous).sum() / (~anomalous).sum().clamp(min=1),
        0.5 * (first - second).abs().sum() / max(pairs.shape[1], 1),
    )


def check_scores_finite(scores: Tensor) -> None:
    """Refuse scores of a head that has diverged.

    Raises:
        UserError: If one is not finite.
    """
    if not bool(scores.isfinite().all()):
        msg = "FUN-AD's scores are no longer finite: lower fun_ad.lr"
        raise UserError(msg)


def _unit_range(values: Tensor) -> Tensor:
    """Scale values to [0, 1]; equal ones become 0."""
    check_scores_finite(values)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)
