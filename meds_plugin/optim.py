"""The optimiser and learning-rate schedule that the reference trains its detectors with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

__all__ = ["OptimizerSettings", "stable_adamw", "warm_cosine"]


@dataclass(frozen=True)
class OptimizerSettings:
    """Everything about the updates; the defaults are the reference's for Dinomaly.

    Attributes:
        lr: Learning rate after the warm-up; INP-Former uses 1e-3.
        final_lr: Learning rate at the end of a stage; INP-Former uses 1e-4.
        warmup: Steps of linear warm-up at the start of each stage; the very first has rate 0.
        weight_decay: Decoupled, times the learning rate, on every parameter.
        betas: Decay rates of the two moments.
        eps: Added to the denominator of the update.
        amsgrad: Whether the denominator is the largest second moment so far.
        clip_threshold: Largest root mean square of a parameter tensor's gradient over denominator;
            larger ones shrink the step. None: no limit.
        gradient_clip: Global L2 norm that gradients are clipped to before a step.
    """

    lr: float = 2e-3
    final_lr: float = 2e-4
    warmup: int = 100
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-10
    amsgrad: bool = True
    clip_threshold: float | None = 1.0
    gradient_clip: float = 0.1

    def lr_at(self, step: int, *, total: int) -> float:
        """Return the learning rate of one step (see `warm_cosine`)."""
        return warm_cosine(step, base=self.lr, final=self.final_lr, total=total, warmup=self.warmup)


def warm_cosine(step: int, *, base: float, final: float, total: int, warmup: int) -> float:
    """Return the learning rate of one step: a linear rise to ``base``, a cosine fall to ``final``.

    Args:
        step: Steps already made, 0 for the first.
        base: Rate at the top, reached in step ``warmup - 1`` and again used in step ``warmup``.
        final: Rate from step ``total`` on.
        total: Number of steps of the schedule.
        warmup: Steps of the rise, which starts at 0. Where they would leave nothing for the fall
            (``warmup >= total``), the rise takes the first half of the steps.

    Source:
        The reference's warm-up cosine schedule; the rule for short schedules is ours.
    """
    if step >= total:
        return final
    if warmup >= total:
        warmup = total // 2
    if step < warmup:
        return base * step / max(warmup - 1, 1)
    progress = (step - warmup) / (total - warmup)
    return final + 0.5 * (base - final) * (1.0 + math.cos(math.pi * progress))


def stable_adamw(
    params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Build AdamW with update clipping.

    Gradient clipping and the schedule are left to the caller.

    Args:
        params: Parameters or parameter groups.
        settings: The optimiser's constants.

    Source:
        The reference's StableAdamW; timm has the same update (Wortsman et al. 2023, without
        clipping the decay).
    """
    from timm.optim.adamw import AdamWLegacy

    optimizer: torch.optim.Optimizer = AdamWLegacy(
        params,
        lr=settings.lr,
        betas=tuple(settings.betas),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
        clipping_threshold=settings.clip_threshold,
    )
    return optimizer
