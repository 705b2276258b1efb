"""Reductions over the processes of a distributed job; without one, values stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

__all__ = ["first_with", "max_over_ranks", "sum_over_ranks"]


def sum_over_ranks(*values: Tensor) -> tuple[Tensor, ...]:
    """Add tensors up over all processes, in place."""
    if _connected():
        for value in values:
            distributed.all_reduce(value)
    return values


def max_over_ranks(values: Tensor) -> int:
    """Return the largest value that any process has."""
    largest = values.max()
    if _connected():
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)


def first_with(present: Tensor) -> Tensor:
    """Return where this process is the first of those in which ``present`` is true, as bool."""
    if not _connected():
        return present
    rank = distributed.get_rank()
    first = torch.where(present, rank, distributed.get_world_size())
    distributed.all_reduce(first, op=distributed.ReduceOp.MIN)
    return present & (first == rank)


def _connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()
