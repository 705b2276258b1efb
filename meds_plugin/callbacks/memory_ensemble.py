"""Stage 1: score every training patch by its distance to random memories."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L

from meds_plugin.callbacks.base import shows_progress, training_stream
from meds_plugin.ensemble import MemorySettings, ensemble_scores
from meds_plugin.memory import by_group
from meds_plugin.memory_vectors import memory_vectors
from meds_plugin.metrics import image_score
from meds_plugin.progress import counter
from meds_plugin.selection import group_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from meds_plugin.reader import ImageReader
    from meds_plugin.stream import TrainingStream

__all__ = ["MemoryEnsembleCallback", "views_of"]


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
        """Score the training images, unless a checkpoint brought the scores."""
        if self.maps is not None or self._stream is None:
            return
        start = time.perf_counter()
        images = self._stream.images
        progress = shows_progress(trainer)

        def score(name: str, members: Tensor) -> Tensor:
            features, grid = memory_vectors(
                images,
                members.tolist(),
                dtype=self.settings.dtype,
                device=pl_module.device,
                progress=f"features of {name}" if progress else None,
            )
            with counter(f"memory of {name}", enabled=progress) as count:
                scores = ensemble_scores(
                    features,
                    self.settings,
                    seed=self.seed,
                    group=name,
                    views=views_of(images.reader, members.tolist()),
                    progress=count,
                )
            return scores.view(-1, *grid).cpu()

        self.maps = by_group(group_indices(images.reader.categories), score)
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


def views_of(reader: ImageReader, members: Sequence[int]) -> list[str] | None:
    """Return the views of some images, ``None`` where there are none."""
    return None if reader.views is None else [reader.views[index] for index in members]
