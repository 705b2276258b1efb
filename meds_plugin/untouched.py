"""Runs modules so that nothing about them, or about the random state, is different afterwards."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from meds_plugin.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["untouched"]


@contextlib.contextmanager
def untouched(*modules: nn.Module, device: torch.device) -> Iterator[None]:
    """Seed the random generators inside the block; put modules and generators back after it.

    Put back are parameters, buffers (batch statistics, codebooks kept by moving averages),
    gradients, modes, and every attribute of the modules with what it holds where that is a tensor,
    list, dict or set. Needs memory for a second copy of the weights.

    Args:
        modules: What runs inside the block.
        device: Where they are; the generator of an accelerator is put back, too.
    """
    # Parameters and submodules are in attributes, too: torch keeps them in dicts.
    parts = list(dict.fromkeys(part for module in modules for part in module.modules()))
    attributes = [(vars(part), dict(vars(part))) for part in parts]
    values = [value for _, before in attributes for value in before.values()]
    held = [(value, value.copy()) for value in values if isinstance(value, (dict, list, set))]
    inner = [each for _, copy in held for each in _members(copy)]
    tensors = {id(v): v for v in [*values, *inner] if isinstance(v, Tensor)}
    with torch.no_grad():
        weights = [(t, t.detach().clone(), t.grad if t.is_leaf else None) for t in tensors.values()]
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - detectors may use it
    try:
        with torch_seeded(0, "probe", device=device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for now, before in attributes:
            now.clear()
            now.update(before)
        for container, copy in held:
            container.clear()
            container.extend(copy) if isinstance(container, list) else container.update(copy)
        for tensor, value, grad in weights:
            if tensor.is_leaf:
                tensor.grad = grad
            if not torch.equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)


def _members(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, dict) else container)
