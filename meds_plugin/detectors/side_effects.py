"""Runs modules without side effects on them or on the random state."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["untouched"]

_MUTABLE = (dict, list, set)


@contextlib.contextmanager
def untouched(*modules: nn.Module, device: torch.device) -> Iterator[None]:
    """Seed the random generators inside the block; restore modules and generators after it.

    Restored are parameters, buffers (batch statistics, codebooks updated by moving averages),
    gradients, modes, and all attributes of the modules, including the contents of tensors, lists,
    dicts and sets, however nested. Needs memory for a second copy of the weights.

    Args:
        modules: What runs inside the block.
        device: Where they are; the generator of an accelerator is restored, too.
    """
    found: dict[int, Any] = {}
    for module in modules:
        for part in module.modules():
            _collect(vars(part), found)  # includes torch's dicts of parameters and submodules
    held = [(each, each.copy()) for each in found.values() if isinstance(each, _MUTABLE)]
    tensors = [each for each in found.values() if isinstance(each, Tensor)]
    with torch.no_grad():
        weights = [(t, t.detach().clone(), t.grad if t.is_leaf else None) for t in tensors]
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - detectors may use it
    try:
        with torch_seeded(0, "probe", device=device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for container, copy in held:
            container.clear()
            container.extend(copy) if isinstance(container, list) else container.update(copy)
        for tensor, value, grad in weights:
            if tensor.is_leaf:
                tensor.grad = grad
            if not torch.equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)


def _collect(value: Any, found: dict[int, Any]) -> None:
    """Collect a value and its members, if they are tensors or containers, by identity."""
    if id(value) in found:
        return
    if isinstance(value, Tensor):
        found[id(value)] = value
    elif isinstance(value, (*_MUTABLE, tuple)):
        found[id(value)] = value
        for member in value.values() if isinstance(value, dict) else value:
            _collect(member, found)
