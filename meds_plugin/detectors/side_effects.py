"""Runs modules so that nothing about them, or about the random state, is different afterwards."""

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

_CHANGEABLE = (dict, list, set)


@contextlib.contextmanager
def untouched(*modules: nn.Module, device: torch.device) -> Iterator[None]:
    """Seed the random generators inside the block; put modules and generators back after it.

    Put back are parameters, buffers (batch statistics, codebooks kept by moving averages),
    gradients, modes, and every attribute of the modules with what it holds where that is a tensor,
    list, dict or set, nested or not. Needs memory for a second copy of the weights.

    Args:
        modules: What runs inside the block.
        device: Where they are; the generator of an accelerator is put back, too.
    """
    found: dict[int, Any] = {}
    for module in modules:
        for part in module.modules():
            _walk(vars(part), found)  # parameters and submodules are here, too: torch has dicts
    held = [(each, each.copy()) for each in found.values() if isinstance(each, _CHANGEABLE)]
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


def _walk(value: Any, found: dict[int, Any]) -> None:
    """Collect the tensors and containers that a value is or holds, by identity."""
    if id(value) in found:
        return
    if isinstance(value, Tensor):
        found[id(value)] = value
    elif isinstance(value, (*_CHANGEABLE, tuple)):
        found[id(value)] = value
        for member in value.values() if isinstance(value, dict) else value:
            _walk(member, found)
