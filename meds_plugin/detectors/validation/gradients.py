"""Checks of the gradients that a detector's map and loss carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.utils.errors import DetectorError

if TYPE_CHECKING:
    from meds_plugin.detectors.view import DetectorView

__all__ = ["check_gradient", "reached"]


def check_gradient(view: DetectorView, name: str, what: str, value: Tensor) -> None:
    """Check that a value carries a finite gradient to parameters that train.

    Raises:
        DetectorError: Naming the method and the fault.
    """
    if not value.requires_grad:
        msg = (
            f"{name} returned a {what} without gradient: leave out detach(), no_grad and numpy "
            "between the layers that train and the result"
        )
        raise DetectorError(msg)
    grads = _gradients(value, view)
    if not any(grad is not None for grad in grads):
        msg = (
            f"{name} returned a {what} that depends on no parameter that trains: use the layers "
            "that train in it, without detach() or no_grad after them"
        )
        raise DetectorError(msg)
    if not all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None):
        msg = (
            f"the gradient of {name} is not finite: keep roots, norms and logarithms away from 0, "
            "e.g. (x + 1e-6).sqrt()"
        )
        raise DetectorError(msg)
    # A loss may start at 0.
    if what == "map" and not any(bool(grad.any()) for grad in grads if grad is not None):
        msg = (
            f"the gradient of {name} is 0 everywhere: leave out rounding and signs, and start a "
            "student from other weights than its teacher's"
        )
        raise DetectorError(msg)


def _gradients(value: Tensor, view: DetectorView) -> list[Tensor | None]:
    # Unequal weights, because the plain sum of a normalised map is constant.
    weight = torch.linspace(0.5, 1.5, value.numel(), device=value.device).view_as(value)
    total = (weight * value).sum()
    parameters = view.trainable_parameters()
    return list(torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True))


def reached(value: Tensor, view: DetectorView) -> list[str]:
    """Return the names of the parameters that a value would train."""
    if not value.requires_grad:
        return []
    names = {id(parameter): name for name, parameter in view.detector.named_parameters()}
    pairs = zip(view.trainable_parameters(), _gradients(value, view), strict=True)
    return [names[id(parameter)] for parameter, grad in pairs if grad is not None]
