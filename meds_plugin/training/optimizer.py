"""The optimiser and learning-rate schedule that the reference trains its detectors with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

__all__ = ["OptimizerSettings", "StableAdamW", "warm_cosine"]


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


class StableAdamW(Optimizer):
    """AdamW whose steps are shortened where a tensor's gradient outgrows its denominator.

    All tensors of a group are updated by a few calls that take them together, and no number leaves
    the device, so that an accelerator never has to be waited for.

    Args:
        params: Parameters or parameter groups.
        settings: The optimiser's constants; schedule and gradient clipping are left to the caller.

    Source:
        docs/method.md, section 5; the reference's StableAdamW (Wortsman et al. 2023,
        without clipping the decay).
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], settings: OptimizerSettings
    ) -> None:
        defaults = {
            "lr": settings.lr,
            "betas": tuple(settings.betas),
            "eps": settings.eps,
            "weight_decay": settings.weight_decay,
            "amsgrad": settings.amsgrad,
            "clipping_threshold": settings.clip_threshold,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes gradients and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Corrections depend on the step and memory on the device: tensors of both alike go
            # together. As a rule that is all of them.
            alike: dict[tuple[int, torch.device, torch.dtype], list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    count = self._advance(param, amsgrad=group["amsgrad"])
                    alike.setdefault((count, param.device, param.dtype), []).append(param)
            for (count, _, _), members in alike.items():
                self._update(members, group, count)
        return loss

    def _advance(self, param: Tensor, *, amsgrad: bool) -> int:
        """Return the number of the step that a parameter takes now; the first is 1."""
        state = self.state[param]
        if not state:
            state["step"] = 0
            for name in ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ())):
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        state["step"] += 1
        count: int = state["step"]
        return count

    def _update(self, params: list[Tensor], group: dict[str, Any], count: int) -> None:
        """Update parameters that are at the same step."""
        (beta1, beta2), rate, limit = group["betas"], group["lr"], group["clipping_threshold"]
        grads = [param.grad for param in params if param.grad is not None]
        states = [self.state[param] for param in params]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_mul_(params, 1.0 - rate * group["weight_decay"])
        torch._foreach_lerp_(means, grads, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1.0 - beta2)
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, squares)
            squares = largest
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, math.sqrt(1.0 - beta2**count))
        torch._foreach_add_(denominators, group["eps"])
        if limit is not None:
            excess = torch._foreach_norm(torch._foreach_div(grads, denominators))
            torch._foreach_div_(excess, [limit * math.sqrt(param.numel()) for param in params])
            torch._foreach_clamp_min_(excess, 1.0)
            torch._foreach_mul_(denominators, excess)
        torch._foreach_addcdiv_(params, means, denominators, -rate / (1.0 - beta1**count))
