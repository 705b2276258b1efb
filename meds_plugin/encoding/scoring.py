"""Runs a detector over encoded images without training it, on any number of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.detectors.inference import evaluating
from meds_plugin.detectors.outputs import check_finite
from meds_plugin.distributed.ranks import gather_in_order, my_chunks, rank_and_world
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.encoding.encoded_images import EncodedImages

__all__ = ["anomaly_maps", "selection_scores"]

_ACCELERATOR_BATCH = 64


@torch.no_grad()
def anomaly_maps(
    images: EncodedImages,
    indices: Sequence[int],
    *,
    device: torch.device,
    reduce: Callable[[Tensor], Tensor] | None = None,
    progress: str | None = None,
) -> Tensor:
    """Return the detector's anomaly maps of some images, in evaluation mode.

    Args:
        images: The images and the detector.
        indices: Which images, at least one; each rank runs a share, and all get all results.
        device: Where the detector is.
        reduce: Turns the maps ``[B, h, w]`` of a batch, float32 whatever the run's precision, into
            ``[B, ...]`` values, which are returned instead.
        progress: Name of a progress bar; ``None`` shows none.

    Returns:
        ``[len(indices), h, w]`` (or the values of ``reduce``) float32 on the CPU, higher =
        more anomalous.

    Raises:
        DetectorError: If the detector returns maps of a wrong shape or values that are not finite.
    """
    plan = my_chunks(indices, _batch_size(images, device))
    results: list[Tensor] = []
    waiting: Tensor | None = None  # fetched only when the next batch has been read meanwhile

    def fetch(maps: Tensor) -> None:
        check_finite(maps, name=images.view.name_of("anomaly_map"))
        results.append((maps if reduce is None else reduce(maps)).cpu())

    batches = images.batches(plan, pinned=device.type == "cuda")
    with evaluating(images.view.detector):
        for batch in track(batches, description=progress, total=len(plan)):
            if waiting is not None:
                fetch(waiting)
            on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
            with images.precision():
                encoded = images.encoded(on_device)
                waiting = images.view.anomaly_map(encoded, category=on_device["category"]).float()
        if waiting is not None:
            fetch(waiting)
    return gather_in_order(torch.cat(results) if results else None)


def selection_scores(
    images: EncodedImages, *, top: float, device: torch.device, progress: str | None = None
) -> Tensor:
    """Return the selection score of every training image, ``[N]``, higher = more anomalous.

    Args:
        images: The images and the detector.
        top: Share of a map's largest values that are averaged, where the detector has no
            ``image_score`` of its own.
        device: Where the detector is.
        progress: Name of a progress bar; ``None`` shows none.
    """
    return anomaly_maps(
        images,
        range(len(images)),
        device=device,
        reduce=lambda maps: images.view.image_score(maps, top=top),
        progress=progress,
    )


def _batch_size(images: EncodedImages, device: torch.device) -> int:
    """Return how many images to score at once: as configured, else what suits the device.

    Accelerators need large batches; a CPU is fastest with batches that fit into its caches. Several
    ranks need enough batches to share.
    """
    own = images.reader.batch_size
    alone = device.type != "cpu" and rank_and_world()[1] == 1
    return images.scoring_batch or (max(own, _ACCELERATOR_BATCH) if alone else own)
