"""Cosine distances of reconstructions, as maps and as a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["cosine_distance", "flat_cosine_loss", "scale_gradient"]

EPS = 1e-8


def cosine_distance(targets: Tensor, reconstructions: Tensor) -> Tensor:
    """Compare two sets of vectors.

    Args:
        targets: ``[..., D]``.
        reconstructions: ``[..., D]``.

    Returns:
        ``[...]`` 1 - cosine in [0, 2], in float32; higher = more anomalous.
    """
    targets, reconstructions = targets.float(), reconstructions.float()
    dots = (targets * reconstructions).sum(-1)
    similarity = _cosine(dots, _squared_length(targets), _squared_length(reconstructions))
    # Rounding can push a cosine slightly above 1; maps are never negative.
    return (1.0 - similarity).clamp_min(0.0)


def flat_cosine_loss(
    targets: Sequence[Tensor],
    reconstructions: Sequence[Tensor],
    factors: Callable[[Tensor], Tensor],
    *,
    patches: int,
) -> Tensor:
    """Compare whole feature maps by one cosine each, with gradients weighted by location.

    Args:
        targets: For each of G groups ``[B, T, D]``, T = prefix tokens + patches; D may differ
            between groups. No gradient reaches them.
        reconstructions: Likewise.
        factors: Maps the cosine distances of all locations ``[B, G, P]`` to the factors of their
            gradients, which do not change the value of the loss.
        patches: P; only the last P tokens count.

    Returns:
        A scalar in [0, 2]: 1 - cosine of the ``P * D`` vectors, averaged over images and groups.

    Source:
        The reference's global cosine losses with hard mining (Dinomaly) and adaptive weights
        (INP-Former).
    """
    dots, target_lengths, lengths = _sums(targets, reconstructions, patches)
    with torch.no_grad():
        factor = factors(1.0 - _cosine(dots, target_lengths, lengths))
    # A location's features reach the loss only through these two sums.
    dots, lengths = scale_gradient(dots, factor), scale_gradient(lengths, factor)
    return (1.0 - _cosine(dots.sum(-1), target_lengths.sum(-1), lengths.sum(-1))).mean()


def _sums(
    targets: Sequence[Tensor], reconstructions: Sequence[Tensor], patches: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``[B, G, P]`` inner products, and squared lengths of both.

    Prefix tokens are cut from these small tensors, not from the large ones, which would be copied.
    """
    sums: tuple[list[Tensor], ...] = ([], [], [])
    for target, reconstruction in zip(targets, reconstructions, strict=True):
        target, reconstruction = target.detach().float(), reconstruction.float()
        sums[0].append((target * reconstruction).sum(-1))
        sums[1].append(_squared_length(target))
        sums[2].append(_squared_length(reconstruction))
    dots, target_lengths, lengths = (torch.stack(each, dim=1)[..., -patches:] for each in sums)
    return dots, target_lengths, lengths


def _squared_length(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return lengths.square()


def scale_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """Return the values unchanged, with their gradient multiplied by the factor."""
    fixed = values.detach()
    return fixed + (values - fixed) * factor


def _cosine(dots: Tensor, squares: Tensor, others: Tensor) -> Tensor:
    """Return cosines from inner products and squared lengths."""
    floor = EPS**2
    return dots / (squares.clamp_min(floor).sqrt() * others.clamp_min(floor).sqrt())
