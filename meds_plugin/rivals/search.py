"""Exact nearest neighbours by Euclidean distance among patches of a bank."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nearest"]

_TABLE_ELEMENTS = 1 << 24  # of distances held at a time


@torch.no_grad()
def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int = 1,
    *,
    left_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the squared distances to the nearest members of a bank, and which these are.

    Args:
        queries: ``[Q, D]``.
        bank: ``[K, D]``.
        k: How many; no more than there are are returned.
        left_out: ``[K]`` bool members to skip, not all.

    Returns:
        ``[Q, k]`` float32 squared distances, ascending, and their places in the bank.
    """
    norms = torch.linalg.vecdot(bank, bank)
    if left_out is not None:
        norms = norms.masked_fill(left_out, torch.inf)
    count = min(k, len(bank) - (0 if left_out is None else int(left_out.sum())))
    places = torch.empty(len(queries), count, dtype=torch.long, device=queries.device)
    values = queries.new_empty(len(queries), count)
    step = max(1, _TABLE_ELEMENTS // len(bank))
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        table = torch.addmm(norms, some, bank.T, alpha=-2)  # less |q|^2, which changes no order
        found = table.argmin(1, keepdim=True) if count == 1 else table.topk(count, largest=False)[1]
        # Without the cancellation of the expanded form.
        exact = torch.stack([(some - bank[column]).square().sum(1) for column in found.T], dim=1)
        values[start : start + step], order = exact.sort(dim=1, stable=True)
        places[start : start + step] = found.gather(1, order)
    return values, places
