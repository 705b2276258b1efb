"""Stage 1: score every training patch by its distance to random memories."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from meds_plugin.callbacks.base import shows_progress, training_stream
from meds_plugin.detector import grid_of
from meds_plugin.encodings import chunked
from meds_plugin.ensemble import MemorySettings, ensemble_scores
from meds_plugin.metrics import image_score
from meds_plugin.modes import evaluating
from meds_plugin.progress import counter, track
from meds_plugin.ranks import gather_in_order, my_chunks, rank_and_world, shard, share_out
from meds_plugin.reader import images_of
from meds_plugin.selection import group_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.encodings import EncodedImages
    from meds_plugin.reader import ImageReader
    from meds_plugin.stream import TrainingStream

__all__ = ["MemoryEnsembleCallback", "patch_features", "views_of"]


class MemoryEnsembleCallback(L.Callback):
    """Compute memory scores of all training images before training starts.

    Works with `MeDSWrapper` and with any LightningModule whose call turns images into an anomaly
    map. Categories of the data set are scored separately, with memories drawn from all their views.

    Args:
        settings: The ensemble.
        seed: The run's seed; matters to drawn memories only.
        top: Share of a map's largest values that make the image score.

    Attributes:
        maps: ``[N, h, w]`` cosine distances in [0, 2], higher = more anomalous; ``None`` before
            the fit. Saved in checkpoints.
        seconds: Time the stage took, encoding included.
    """

    def __init__(
        self, settings: MemorySettings | None = None, *, seed: int = 0, top: float = 0.01
    ) -> None:
        self.settings = settings or MemorySettings()
        self.seed = seed
        self.top = top
        self.maps: Tensor | None = None
        self.seconds = 0.0
        self._stream: TrainingStream | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Get at the training images; scores of an earlier fit are dropped."""
        if stage == "fit":
            self.maps = None
            self._stream = training_stream(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the training images, unless a checkpoint brought the scores.

        Each rank scores some categories; all of them share one that is larger than a rank's part.
        """
        if self.maps is not None or self._stream is None:
            return
        start = time.perf_counter()
        images = self._stream.images
        progress = shows_progress(trainer)
        groups = group_indices(images.reader.categories)
        rank, world = rank_and_world()
        costs = {name: float(len(members)) ** 2 for name, members in groups.items()}  # pairs
        owners = share_out(costs, world, divisible=_takes_parts(self.settings))
        scored: list[tuple[Tensor, Tensor]] = []
        for name, members in groups.items():
            if owners[name] not in (rank, None):
                continue
            every, together = members.tolist(), owners[name] is None
            mine = shard(len(every), rank, world) if together else range(len(every))
            features, grid = patch_features(
                images,
                every,
                device=pl_module.device,
                together=together,
                progress=f"features of {name}" if progress else None,
            )
            if not mine:
                continue
            with counter(f"memory of {name}", enabled=progress) as count:
                scores = ensemble_scores(
                    features,
                    self.settings,
                    seed=self.seed,
                    group=name,
                    queries=features[mine.start : mine.stop] if together else None,
                    views=views_of(images.reader, every),
                    progress=count,
                )
            scored.append((members[mine.start : mine.stop], scores.view(-1, *grid).cpu()))
        places = gather_in_order(torch.cat([each for each, _ in scored]) if scored else None)
        maps = gather_in_order(torch.cat([each for _, each in scored]) if scored else None)
        self.maps = maps[places.argsort()]
        self.seconds = time.perf_counter() - start

    def image_scores(self) -> Tensor:
        """Return ``[N]`` image scores, higher = more anomalous.

        Raises:
            RuntimeError: Before the scores exist.
        """
        if self.maps is None:
            msg = "memory scores exist only once a fit has started"
            raise RuntimeError(msg)
        return image_score(self.maps, self.top)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores."""
        return {"maps": self.maps, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.maps, self.seconds = state_dict["maps"], state_dict["seconds"]


def patch_features(
    images: EncodedImages,
    indices: Sequence[int],
    *,
    device: torch.device,
    together: bool = False,
    progress: str | None = None,
) -> tuple[Tensor, tuple[int, int]]:
    """Encode some images for the memory.

    Args:
        images: The images and the detector.
        indices: Which images.
        device: Where the detector is.
        together: Called on every rank for the same images: each encodes a share, all get all.
        progress: Name for a progress bar; ``None`` shows none.

    Returns:
        Features ``[len(indices), P, D]`` on the device, and the patch grid (h, w).
    """
    size = images.reader.batch_size
    plan = my_chunks(indices, size) if together else chunked(indices, size)
    batches = track(
        images.reader.batches(plan),
        description=progress or "",
        total=len(plan),
        enabled=progress is not None,
    )
    parts = []
    with evaluating(images.view.detector):
        for batch in batches:
            pixels = images_of(batch).to(device)
            features = images.view.features(pixels)
            grid = grid_of(features, pixels)
            if features.ndim == 4:
                features = features.flatten(2).transpose(1, 2)
            parts.append(features.unflatten(1, grid))
    found = gather_in_order(torch.cat(parts) if parts else None) if together else torch.cat(parts)
    return found.to(device).flatten(1, 2), (found.shape[1], found.shape[2])


def views_of(reader: ImageReader, members: Sequence[int]) -> list[str] | None:
    """Return the views of some images, ``None`` where there are none."""
    return None if reader.views is None else [reader.views[index] for index in members]


def _takes_parts(settings: MemorySettings) -> bool:
    """Whether images may be scored a part at a time, as queries of their own, with equal results.

    Queries are not recognised as the stored images they are, so none could be left out; and where
    cosines are rounded, a tiny difference would become a step.
    """
    expected = settings.ensemble == "expected" and settings.unit == "image"
    return expected and not settings.leave_self_out
