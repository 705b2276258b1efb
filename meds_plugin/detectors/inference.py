"""Running a detector without training it: evaluation mode, precision, device."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["autocast_as", "choose_device", "evaluating"]

_HALF = {"bf16": torch.bfloat16, "16": torch.float16}


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation mode inside the block, and restore the modes."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def autocast_as(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a detector computes as in a trainer with that precision.

    Args:
        precision: Lightning's name: ``bf16-mixed`` or ``16-mixed``, also without ``-mixed``; others
            mean float32.
        device: Where it computes.
    """
    dtype = _HALF.get(precision.removesuffix("-mixed"))
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def choose_device(name: str | torch.device) -> torch.device:
    """Return a device by name; ``auto`` takes an accelerator where there is one.

    Raises:
        UserError: If there is no such device.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            first = str(error).splitlines()[0]
            msg = f"device={name} is not there ({first}); take auto or cpu"
            raise UserError(msg) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
