"""Exact nearest neighbours among patches by cosine distance, with faiss or with torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from meds_plugin.memory.pairwise import PatchVectors, as_queries, bits
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        backend: ``faiss`` (float32; on a GPU only if faiss was built for it) or ``torch`` (any
            device and type); ``auto`` takes faiss for float32 on a CPU, else torch.
        dtype: Type of the matrix products.

    Returns:
        ``[Q, k]`` float32 cosine distances in [0, 2], ascending.

    Raises:
        ValueError: On wrong shapes, values that are not finite, or k out of range.
    """
    return next(nearest_blocks(bank[None], queries[None], k, backend=backend, dtype=dtype))


@torch.no_grad()
def nearest_blocks(
    features: Tensor | PatchVectors,
    queries: Tensor | PatchVectors | None,
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
    if leave_self_out and queries is not None:
        msg = "queries are not stored: there is nothing to leave out"
        raise ValueError(msg)
    stored = features if isinstance(features, PatchVectors) else PatchVectors(features, dtype)
    search = _search_by(backend, stored)
    asked = stored if queries is None else as_queries(queries, stored)
    count, patches = stored.data.shape[:2]
    if not 1 <= k <= (count - leave_self_out) * patches:
        msg = f"k must be in 1..{(count - leave_self_out) * patches}, got {k}"
        raise ValueError(msg)
    for tile in stored.pieces(range(len(asked)), askers=True):
        lefts = [asked.mirrored(image) for image in tile]
        found = [left.new_empty(len(left), 0) for left in lefts]
        for piece in stored.pieces(range(count)):
            right = stored.fetch(piece)
            for place, image in enumerate(tile):
                left_out = image - piece.start if leave_self_out and image in piece else None
                for bank in _without(right, left_out):
                    values = search(lefts[place], bank, min(k, len(bank)))
                    found[place] = _smallest(found[place], values, k)
        for values in found:
            yield values.float().clamp_(min=0)


def _search_by(backend: Backend, stored: PatchVectors) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return what finds the nearest vectors.

    Raises:
        UserError: If the backend cannot search these.
    """
    device, dtype = stored.device.type, stored.data.dtype
    on_cpu = device == "cpu" and dtype == torch.float32
    if backend == "torch" or (backend == "auto" and not on_cpu):
        return _torch_search
    if backend in ("auto", "faiss") and on_cpu:
        return _faiss_search
    if backend == "faiss" and device == "cuda" and dtype == torch.float32 and _faiss_has_gpus():
        return _faiss_gpu_search
    msg = (
        f"backend {backend!r} cannot search {dtype} vectors on {device}: faiss takes float32, on a "
        "GPU only where it was built for one; memory.search=torch takes all"
    )
    raise UserError(msg)


def _without(right: Tensor, left_out: int | None) -> Iterator[Tensor]:
    """Yield the patches ``[M, D']`` of some images ``[n, P, D']``, one image left out."""
    if left_out is None:
        yield right.flatten(0, 1)
        return
    for part in (right[:left_out], right[left_out + 1 :]):
        if len(part) > 0:
            yield part.flatten(0, 1)


def _smallest(found: Tensor, more: Tensor, k: int) -> Tensor:
    """Return the k smallest of two ascending lists a row; of non-negative floats by their bits."""
    if found.shape[1] == 0:
        return more
    both = torch.cat([bits(found.clamp(min=0)), bits(more.clamp(min=0))], dim=1)
    return both.sort(dim=1).values[:, :k].contiguous().view(found.dtype)


def _faiss_has_gpus() -> bool:
    import faiss  # slow to import

    return bool(getattr(faiss, "get_num_gpus", lambda: 0)() > 0)


def _faiss_gpu_search(left: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return ``[q, k]`` distances from faiss on the GPU the tensors lie on.

    faiss 1.15 keeps at most 2048 neighbours there.
    """
    import faiss
    import faiss.contrib.torch_utils  # lets faiss take tensors

    resources = faiss.StandardGpuResources()
    values, _ = faiss.knn_gpu(
        resources, left.neg(), bank, k, metric=faiss.METRIC_INNER_PRODUCT, device=left.device.index
    )
    torch.cuda.synchronize(left.device)
    return values.neg_()


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
