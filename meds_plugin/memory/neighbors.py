"""Exact nearest neighbours among patches by cosine distance, with faiss or with torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from meds_plugin.memory.patch_vectors import bits
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meds_plugin.memory.patch_vectors import PatchVectors

__all__ = ["Backend", "nearest_distances"]

Backend = Literal["auto", "faiss", "torch"]

_FAISS_GPU_MOST = 2048  # neighbours that faiss finds on a GPU
# Rows and elements of the torch search's distance table.
_QUERIES = 1024
_TABLE_ELEMENTS = 1 << 23


@torch.no_grad()
def nearest_distances(
    stored: PatchVectors,
    queries: PatchVectors | None,
    k: int,
    *,
    leave_self_out: bool = False,
    backend: Backend = "auto",
) -> Iterator[Tensor]:
    """Yield the distances of one image's patches to their k nearest among all stored patches.

    Args:
        stored: N images of P patches.
        queries: Q images of P' patches; ``None`` searches for the stored images themselves.
        k: Neighbours, 1 <= k <= the number of patches searched.
        leave_self_out: Skip all patches of the query image; needs ``queries=None``.
        backend: ``faiss`` (float32; on a GPU at most 2048 neighbours, and only if faiss was built
            for it), ``torch`` (any device and type), or ``auto``: faiss where it can, else torch.

    Yields:
        ``[P', k]`` float32 cosine distances in [0, 2] for every image in turn, ascending.

    Raises:
        UserError: If the backend cannot search these vectors.
    """
    search = _search_by(backend, stored, k)
    asked = stored if queries is None else queries
    for tile in stored.pieces(range(len(asked)), queries=True):
        lefts = [asked.mirrored(image) for image in tile]
        found = [left.new_empty(len(left), 0) for left in lefts]
        for piece in stored.pieces(range(len(stored))):
            right = stored.fetch(piece)
            for place, image in enumerate(tile):
                left_out = image - piece.start if leave_self_out and image in piece else None
                for bank in _without(right, left_out):
                    values = search(lefts[place], bank, min(k, len(bank)))
                    found[place] = _smallest(found[place], values, k)
        for values in found:
            yield values.float().clamp_(min=0)


def _search_by(
    backend: Backend, stored: PatchVectors, k: int
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return the function that finds the k nearest vectors.

    Raises:
        UserError: If the backend cannot search these.
    """
    device, dtype = stored.device.type, stored.data.dtype
    if backend == "torch":
        return _torch_search
    if backend in ("auto", "faiss") and dtype == torch.float32:
        if device == "cpu":
            return _faiss_search
        if device == "cuda" and k <= _FAISS_GPU_MOST and _faiss_has_gpus():
            return _faiss_gpu_search()
    if backend == "auto":
        return _torch_search
    msg = (
        f"backend {backend!r} cannot search {dtype} vectors on {device} for {k} neighbours: faiss "
        f"takes float32, on a GPU at most {_FAISS_GPU_MOST} and only where it was built for one; "
        "memory.search=torch takes all"
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
    """Return the k smallest of two ascending lists per row, negative values as 0."""
    if found.shape[1] == 0:
        return more
    both = torch.cat([bits(found.clamp(min=0)), bits(more.clamp(min=0))], dim=1)
    return both.sort(dim=1).values[:, :k].contiguous().view(found.dtype)


def _faiss_has_gpus() -> bool:
    try:
        import faiss  # slow to import
    except ImportError:
        return False
    return bool(getattr(faiss, "get_num_gpus", lambda: 0)() > 0)


def _faiss_gpu_search() -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return a search by faiss on the tensors' GPU; its scratch memory lives as long."""
    import faiss
    import faiss.contrib.torch_utils  # lets faiss take tensors

    resources = faiss.StandardGpuResources()

    def search(left: Tensor, bank: Tensor, k: int) -> Tensor:
        values, _ = faiss.knn_gpu(
            resources,
            left.neg(),
            bank,
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
            device=left.device.index,
        )
        torch.cuda.synchronize(left.device)
        return values.neg_()

    return search


def _faiss_search(left: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return ``[q, k]`` distances; the products are distances, so the search negates them.

    `faiss.knn` is what ``IndexFlatIP`` runs, without its copy of the bank.
    """
    import faiss  # slow to import, and only this search needs it

    values, _ = faiss.knn(left.neg().numpy(), bank.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(values).neg_()


def _torch_search(left: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return ``[q, k]`` distances from blocks of products."""
    found = []
    for rows in left.split(_QUERIES):
        best = rows.new_empty(len(rows), 0)
        for part in bank.split(max(k, _TABLE_ELEMENTS // len(rows))):
            table = bits(rows @ part.t()).clamp_(min=0)
            nearest = table.topk(min(k, len(part)), dim=1, largest=False).values
            best = _smallest(best, nearest.view(left.dtype), k)
        found.append(best)
    return torch.cat(found)
