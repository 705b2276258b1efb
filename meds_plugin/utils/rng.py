"""Random generators keyed by seed and purpose, so that the order of calls does not matter."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["derive_seed", "numpy_rng", "torch_generator", "torch_seeded"]


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive an independent 63-bit seed from a run's seed and a purpose.

    Args:
        seed: The run's seed.
        *purpose: What is sampled, e.g. ``("noise", "bottle")``; each has its own numbers.

    Returns:
        An integer in [0, 2**63).
    """
    key = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return numpy's generator for one purpose (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU torch generator for one purpose (see `derive_seed`)."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextlib.contextmanager
def torch_seeded(
    seed: int, *purpose: str | int, device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after it.

    For code that can only use the global generators: weight initialisation and dropout.

    Args:
        seed: The run's seed.
        *purpose: What is sampled (see `derive_seed`).
        device: Also seed and restore this accelerator's generator, besides the CPU's.
    """
    devices = [] if device is None or device.type == "cpu" else [device]
    kind = devices[0].type if devices else "cuda"
    number = derive_seed(seed, *purpose)
    with torch.random.fork_rng(devices=devices, device_type=kind):
        # torch.manual_seed would also queue a seed for every kind of device that is not in use:
        # milliseconds per training step, and memory that is never freed.
        torch.default_generator.manual_seed(number)
        for each in devices:
            _seed_accelerator(each, number)
        yield


def _seed_accelerator(device: torch.device, number: int) -> None:
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    else:
        torch.get_device_module(device).manual_seed(number)
