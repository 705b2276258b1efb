"""Exact nearest neighbours among patches by cosine distance, with faiss or with torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from meds_plugin.pairwise import PatchVectors, bits

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Backend", "nearest_blocks", "nearest_distances"]

Backend = Literal["auto", "faiss", "torch"]

# Rows and elements of the torch search's distance table.
_QUERIES = 1024
_TABLE_ELEMENTS = 1 << 23


def nearest_distances(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    backend: Backend = "auto",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return each query's distances to its k nearest vectors of a bank.

    Args:
        bank: ``[M, D]`` finite vectors of any length; normalised inside.
        queries: ``[Q, D]`` likewise.
        k: Neighbours, 1 <= k <= M.
        backend: ``faiss`` (CPU tensors, float32) or ``torch`` (any device and type); ``auto`` takes
            faiss where it can.
        dtype: Type of the matrix products.

    Returns:
        ``[Q, k]`` float32 cosine distances in [0, 2], ascending.

    Raises:
        ValueError: On wrong shapes, values that are not finite, or k out of range.
    """
    return next(nearest_blocks(bank[None], queries[None], k, backend=backend, dtype=dtype))


@torch.no_grad()
def nearest_blocks(
    features: Tensor,
    queries: Tensor | None,
    k: int,
    *,
    leave_self_out: bool = False,
    backend: Backend = "auto",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Yield the distances of one image's patches to their k nearest among all images' patches.

    Args:
        features: ``[N, P, D]`` stored images; see ``bank`` of `nearest_distances`.
        queries: ``[Q, P', D]``; ``None`` asks for the stored images themselves.
        k: Neighbours, at most the patches searched.
        leave_self_out: Skip all patches of the image that asks; needs ``queries=None``.
        backend: See `nearest_distances`.
        dtype: See there.

    Yields:
        ``[P', k]`` float32 for every image in turn, ascending.

    Raises:
        ValueError: See there.
    """
    possible = features.device.type == "cpu" and dtype == torch.float32
    if backend not in ("auto", "faiss", "torch") or (backend == "faiss" and not possible):
        msg = f"backend {backend!r} cannot search {dtype} vectors on {features.device}"
        raise ValueError(msg)
    if leave_self_out and queries is not None:
        msg = "queries are not stored: there is nothing to leave out"
        raise ValueError(msg)
    stored = PatchVectors(features, dtype)
    asked = stored if queries is None else PatchVectors(queries.to(features.device), dtype)
    if asked.channels != stored.channels:
        msg = f"queries have {asked.channels} channels, the stored vectors {stored.channels}"
        raise ValueError(msg)
    count, patches = stored.data.shape[:2]
    if not 1 <= k <= (count - leave_self_out) * patches:
        msg = f"k must be in 1..{(count - leave_self_out) * patches}, got {k}"
        raise ValueError(msg)
    search = _torch_search if backend == "torch" or not possible else _faiss_search
    for image in range(len(asked)):
        left = asked.mirrored(image)
        ends = ((0, image), (image + 1, count)) if leave_self_out else ((0, count),)
        parts = [stored.data[start:stop].flatten(0, 1) for start, stop in ends if start < stop]
        found = torch.cat([search(left, part, min(k, len(part))) for part in parts], dim=1)
        if len(parts) > 1:
            found = found.sort(dim=1).values[:, :k]
        yield found.float().clamp_(min=0)


def _faiss_search(left: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return ``[q, k]`` distances; the products are distances, so the largest negated are wanted.

    `faiss.knn` is what ``IndexFlatIP`` runs, without its copy of the bank.
    """
    import faiss  # slow to import, and only this search needs it

    values, _ = faiss.knn(left.neg().numpy(), bank.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(values).neg_()


def _torch_search(left: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return ``[q, k]`` distances from blocks of products."""
    rows = torch.split(left, _QUERIES)
    return torch.cat([_torch_search_rows(part, bank, k) for part in rows])


def _torch_search_rows(left: Tensor, bank: Tensor, k: int) -> Tensor:
    best = left.new_empty(len(left), 0)
    for part in torch.split(bank, max(k, _TABLE_ELEMENTS // len(left))):
        table = left.new_empty(len(left), len(part))
        torch.mm(left, part.t(), out=table)
        nearest = bits(table).clamp_(min=0).topk(min(k, len(part)), dim=1, largest=False).values
        both = torch.cat([bits(best), nearest], dim=1)
        best = both.sort(dim=1).values[:, :k].contiguous().view(left.dtype)
    return best
