"""The distillation loss: trains a detector's map to match the memory ensemble's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from torch.nn import functional as F

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DistillLoss", "check_loss", "distillation_loss", "match_grid"]

DistillLoss = Literal["l2", "l1"]


def check_loss(kind: object) -> None:
    """Refuse an unknown loss.

    Raises:
        UserError: Naming the key.
    """
    if kind not in get_args(DistillLoss):
        msg = f"distillation.loss must be {' or '.join(get_args(DistillLoss))}, got {kind!r}"
        raise UserError(msg)


def distillation_loss(
    maps: Tensor, targets: Tensor, *, kind: DistillLoss = "l2", weight: float = 10.0
) -> Tensor:
    """Compare anomaly maps with memory scores on the same images.

    Args:
        maps: ``[B, h, w]`` maps of the detector, higher = more anomalous, with gradient.
        targets: ``[B, H, W]`` memory scores, cosine distances in [0, 2].
        kind: Mean squared (``l2``, the reference's default) or mean absolute difference (``l1``).
        weight: Factor of the loss; the reference uses 10.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: If ``kind`` is unknown.

    Source:
        docs/method.md, section 3; factor and l2 default from the reference.
    """
    check_loss(kind)
    maps, targets = match_grid(maps, targets)
    return weight * (F.mse_loss if kind == "l2" else F.l1_loss)(maps, targets)


def match_grid(maps: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Pool a map and its target to one grid, the coarser of the two in each direction.

    A map finer than the memory's patches is compared by its mean over each patch. Equal grids, as
    in all reference detectors, stay unchanged.
    """
    if maps.shape[-2:] == targets.shape[-2:]:
        return maps, targets
    height = min(maps.shape[-2], targets.shape[-2])
    width = min(maps.shape[-1], targets.shape[-1])
    maps = F.adaptive_avg_pool2d(maps.unsqueeze(1), (height, width)).squeeze(1)
    targets = F.adaptive_avg_pool2d(targets.unsqueeze(1), (height, width)).squeeze(1)
    return maps, targets
