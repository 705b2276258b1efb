"""Shares the encodings that ranks have computed among all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.distributed.ranks import chunked, from_all, gather_in_order, rank_and_world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from meds_plugin.encoding.cache.store import OutputStore

__all__ = ["exchange"]


def exchange(
    store: OutputStore, compute: Callable[[Sequence[int]], Tensor], *, count: int, batch_size: int
) -> None:
    """Let all ranks cache what any of them has cached; call it on every rank.

    Args:
        store: This rank's store.
        compute: Computes and caches the outputs of images by index: on a rank without any, to learn
            their size, and for those lost since they were cached.
        count: Number of images.
        batch_size: Images sent at a time.
    """
    rank, world = rank_and_world()
    cached = [set(each) for each in from_all(store.cached())]
    everywhere, anywhere = set.intersection(*cached), set.union(*cached)
    if world == 1 or everywhere == anywhere:
        return
    if not cached[rank] and store.active:
        compute(range(min(batch_size, count)))
    sources = {index: min(r for r in range(world) if index in cached[r]) for index in anywhere}
    for source in range(world):
        sent = sorted(index for index in anywhere - everywhere if sources[index] == source)
        for some in chunked(sent, batch_size):
            own = None
            if rank == source:
                own = store.get(some)
                own = compute(some) if own is None else own
            values, keys = gather_in_order(own), from_all(store.keys(some))[source]
            if rank != source and store.active:
                store.put(some, keys, values)
