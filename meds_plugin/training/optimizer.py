"""The optimiser and learning-rate schedule of the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

__all__ = ["OptimizerSettings", "StableAdamW"]


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the optimiser and its schedule; defaults are the reference's for Dinomaly.

    Attributes:
        lr: Learning rate after the warm-up; INP-Former uses 1e-3.
        final_lr: Learning rate at the end of a stage; INP-Former uses 1e-4.
        warmup: Steps of linear warm-up at the start of each stage; the very first has rate 0.
        weight_decay: Decoupled decay of every parameter, multiplied by the learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the denominator of the update.
        amsgrad: Whether the denominator is the largest second moment so far.
        clip_threshold: Limit for the root mean square of a parameter tensor's gradient divided by
            its denominator; above it, the step shrinks. None: no limit.
        gradient_clip: Global L2 norm to which gradients are clipped before a step.
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
        """Return the learning rate of one step: a linear rise to `lr`, a cosine fall to `final_lr`.

        Steps ``warmup - 1`` and ``warmup`` both have the full rate. A warm-up that would leave no
        steps for the fall takes the first half of them.

        Args:
            step: Steps already made, 0 for the first.
            total: Number of steps of the schedule; from then on, the rate is `final_lr`.

        Source:
            The reference's warm-up cosine schedule; the rule for short schedules is this package's.
        """
        if step >= total:
            return self.final_lr
        warmup = self.warmup if self.warmup < total else total // 2
        if step < warmup:
            return self.lr * step / max(warmup - 1, 1)
        progress = (step - warmup) / (total - warmup)
        half = 0.5 * (self.lr - self.final_lr)
        return self.final_lr + half * (1.0 + math.cos(math.pi * progress))


class StableAdamW(Optimizer):
    """AdamW whose steps shrink if a tensor's gradient outgrows its denominator.

    A few calls update all tensors of a group together, and no value leaves the device, so nothing
    waits for an accelerator.

    Args:
        params: Parameters or parameter groups.
        settings: The optimiser's constants; the caller applies schedule and gradient clipping.

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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes gradients and returns the loss.

        Returns:
            The loss, if there is a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Tensors of the same step, device and type are updated together: usually all of them.
            alike: dict[tuple[int, torch.device, torch.dtype], list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    count = self._advance(param, amsgrad=group["amsgrad"])
                    alike.setdefault((count, param.device, param.dtype), []).append(param)
            for (count, _, _), members in alike.items():
                self._update(members, group, count)
        return loss

    def _advance(self, param: Tensor, *, amsgrad: bool) -> int:
        """Count a parameter's step and return its number; the first is 1."""
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
