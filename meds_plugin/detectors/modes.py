"""How a detector runs: its modes, whose frozen part must never train, and its precision."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

__all__ = ["evaluating", "freeze_modes", "frozen_prefixes", "mixed"]

_HALF = {
    "bf16-mixed": torch.bfloat16,
    "bf16": torch.bfloat16,
    "16-mixed": torch.float16,
    "16": torch.float16,
}


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation mode inside the block, then back as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def mixed(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a detector computes as in a trainer of that precision.

    Args:
        precision: Lightning's name: ``bf16-mixed``, ``16-mixed``; others mean float32.
        device: Where it computes.
    """
    dtype = _HALF.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def frozen_prefixes(module: nn.Module, trainable: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """Return the names, each with a dot at its end, of the topmost submodules that never train.

    A submodule counts when it has parameters and the optimiser gets none of them.
    """
    learned = {id(parameter) for parameter in trainable}
    found: list[str] = []

    def visit(part: nn.Module, prefix: str) -> None:
        for name, child in part.named_children():
            parameters = list(child.parameters())
            if parameters and not any(id(p) in learned for p in parameters):
                found.append(f"{prefix}{name}.")
            else:
                visit(child, f"{prefix}{name}.")

    visit(module, "")
    return tuple(found)


def freeze_modes(module: nn.Module, frozen: Iterable[str]) -> None:
    """Put the submodules under the prefixes (see `frozen_prefixes`) into evaluation mode.

    Batch statistics stay what they are that way; the reference lets those of a frozen backbone
    drift.
    """
    for prefix in frozen:
        module.get_submodule(prefix.rstrip(".")).eval()
