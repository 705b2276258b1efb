"""Training and evaluation mode of a detector whose frozen part must never leave the latter."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

__all__ = ["evaluating", "freeze_modes", "frozen_prefixes"]


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
