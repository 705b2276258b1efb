"""Shares work among the ranks of a distributed job, and gives all of them the results.

Without a process group there is one rank, which does everything and sends nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "chunked",
    "from_all",
    "from_first",
    "gather_in_order",
    "largest",
    "my_chunks",
    "rank_and_world",
    "shard",
    "share_out",
]

T = TypeVar("T")

# Ranks may wait long for one that has more work; `fail_fast` handles dead ones.
_TIMEOUT = timedelta(days=7)

_groups: dict[Any, Any] = {}  # for the current process group, one that sends CPU tensors


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def shard(count: int, rank: int, world: int) -> range:
    """Return a rank's part of ``range(count)``: contiguous, sizes differ by at most one."""
    return range(count * rank // world, count * (rank + 1) // world)


def chunked(indices: Sequence[int], size: int) -> list[list[int]]:
    """Cut indices into lists of at most ``size``, in order."""
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def my_chunks(indices: Sequence[int], size: int) -> list[list[int]]:
    """Return this rank's share of the chunks of some indices.

    Chunks stay whole, so that results of a batch do not depend on the number of ranks.
    """
    chunks = chunked(indices, size)
    return [chunks[place] for place in shard(len(chunks), *rank_and_world())]


def share_out(
    costs: Mapping[str, float], world: int, *, divisible: bool = True
) -> dict[str, int | None]:
    """Assign tasks to ranks so that all have about the same load.

    Args:
        costs: The cost of each task.
        world: The number of ranks.
        divisible: Whether several ranks can share a task.

    Returns:
        A rank for each task; ``None`` if it costs more than a rank's fair share, so that all ranks
        share it.
    """
    fair = sum(costs.values()) / world
    loads = [0.0] * world
    ranks: dict[str, int | None] = {}
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        if divisible and world > 1 and costs[name] > fair:
            ranks[name] = None
            continue
        ranks[name] = rank = loads.index(min(loads))
        loads[rank] += costs[name]
    return ranks


def gather_in_order(part: Tensor | None) -> Tensor:
    """Return the parts of all ranks, concatenated in order; call it on every rank.

    Args:
        part: ``[n, ...]``, n may differ between ranks; ``None`` if this rank has no part.

    Returns:
        ``[sum of n, ...]`` on the part's device (the CPU where there is no part); the part itself
        if there is one rank.

    Raises:
        ValueError: If no rank has a part, or their shapes or types do not fit together.
    """
    rank, world = rank_and_world()
    if world == 1 and part is not None:
        return part
    kinds = from_all(None if part is None else (len(part), part.shape[1:], part.dtype))
    found = {kind[1:] for kind in kinds if kind is not None}
    if len(found) != 1:
        msg = f"the ranks' parts do not fit together: {kinds}"
        raise ValueError(msg)
    ((shape, dtype),) = found
    counts = [0 if kind is None else kind[0] for kind in kinds]
    whole = torch.empty(sum(counts), *shape, dtype=dtype)
    for source, piece in enumerate(whole.split(counts)):
        if source == rank and part is not None:
            piece.copy_(part)
        if len(piece):
            distributed.broadcast(piece, src=source, group=_group())
    return whole if part is None else whole.to(part.device)


def from_all(value: T) -> list[T]:
    """Return every rank's value in the order of ranks; call it on every rank."""
    _, world = rank_and_world()
    values: list[Any] = [value] * world
    if world > 1:
        distributed.all_gather_object(values, value, group=_group())
    return values


def largest(value: int) -> int:
    """Return the largest of all ranks' values, cheaply; call it on every rank."""
    _, world = rank_and_world()
    if world == 1:
        return value
    found = torch.tensor(value)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX, group=_group())
    return int(found)


def from_first(make: Callable[[], T]) -> T:
    """Compute a value on the first rank and return it on all; call it on every rank."""
    rank, world = rank_and_world()
    if world == 1:
        return make()
    box: list[Any] = [make() if rank == 0 else None]
    distributed.broadcast_object_list(box, src=0, group=_group())
    value: T = box[0]
    return value


def _group() -> Any:
    """Return the process group for CPU tensors and Python objects."""
    whole = distributed.group.WORLD
    if whole not in _groups:
        _groups.clear()
        _groups[whole] = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    return _groups[whole]
