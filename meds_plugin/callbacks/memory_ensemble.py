"""Stage 1: score every training patch by its distance to random memories."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from meds_plugin.callbacks.trainer import shows_progress, training_stream
from meds_plugin.distributed.ranks import gather_in_order, rank_and_world, shard, share_out
from meds_plugin.encoding.memory_features import memory_vectors
from meds_plugin.encoding.reader import views_of
from meds_plugin.memory.embeddings import Embeddings, embed
from meds_plugin.memory.ensemble import ensemble_scores, stored_of
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.utils.groups import group_indices
from meds_plugin.utils.progress import counter

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.training.stream import TrainingStream

__all__ = ["MemoryEnsembleCallback"]


class MemoryEnsembleCallback(L.Callback):
    """Compute memory scores of all training images before training starts.

    Works with `MeDSWrapper` and with any LightningModule whose call turns images into an anomaly
    map. Categories of the data set are scored separately, with memories sampled from all views.

    Args:
        settings: The ensemble.
        seed: The run's seed; matters to sampled memories only.
        top: Share of a map's largest values that make the image score.

    Attributes:
        maps: ``[N, h, w]`` cosine distances in [0, 2], higher = more anomalous; ``None`` before
            the fit. Saved in checkpoints.
        images: ``[N]`` image scores, likewise.
        embeddings: See `Embeddings`, likewise.
        seconds: Time the stage took, without encoding.
        encoding_seconds: Time that encoding took.
    """

    def __init__(
        self, settings: MemorySettings | None = None, *, seed: int = 0, top: float = 0.01
    ) -> None:
        self.settings = settings or MemorySettings()
        self.seed = seed
        self.top = top
        self.maps: Tensor | None = None
        self.images: Tensor | None = None
        self.embeddings: Embeddings | None = None
        self.seconds = self.encoding_seconds = 0.0
        self._stream: TrainingStream | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the training images and drop the scores of an earlier fit."""
        if stage == "fit":
            self.maps = self.images = self.embeddings = None
            self._stream = training_stream(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the training images, unless a checkpoint has the scores.

        Each rank scores some categories; one that is larger than a rank's share is split among all.
        """
        if self.maps is not None or self._stream is None:
            return
        start = time.perf_counter()
        encoding = 0.0
        images = self._stream.images
        progress = shows_progress(trainer)
        groups = group_indices(images.reader.categories)
        rank, world = rank_and_world()
        costs = {name: float(len(members)) ** 2 for name, members in groups.items()}  # pairs
        owners = share_out(costs, world, divisible=_takes_parts(self.settings))
        scored: list[tuple[Tensor, ...]] = []
        for name, members in groups.items():
            if owners[name] not in (rank, None):
                continue
            every, together = members.tolist(), owners[name] is None
            clusters, views = images.reader.clusters.among(members), views_of(images.reader, every)
            stored = stored_of(
                len(every),
                self.settings,
                seed=self.seed,
                group=name,
                views=views,
                clusters=clusters,
            )
            mine = shard(len(every), rank, world) if together else range(len(every))
            begin = time.perf_counter()
            features, grid = memory_vectors(
                images,
                every,
                dtype=self.settings.dtype,
                device=pl_module.device,
                together=together,
                progress=f"features of {name}" if progress else None,
            )
            encoding += time.perf_counter() - begin
            own = torch.tensor(mine)
            scores: Tensor | None = None
            if mine:
                with counter(f"memory of {name}", enabled=progress) as count:
                    scores = ensemble_scores(
                        features,
                        self.settings,
                        seed=self.seed,
                        group=name,
                        images=own if together else None,
                        stored=stored,
                        views=views,
                        clusters=clusters,
                        progress=count,
                    ).cpu()
            whole = gather_in_order(scores) if together else scores
            if scores is None or whole is None:
                continue
            with counter(f"second look at {name}", enabled=progress) as count:
                refined = refined_scores(
                    features,
                    whole,
                    keep=self.settings.keep,
                    ratio=self.settings.keep_ratio,
                    top=self.top,
                    images=own,
                    clusters=clusters,
                    stored=stored,
                    progress=count,
                )
            place = members[mine.start : mine.stop]
            both = embed(features, whole, own)
            scored.append((place, scores.view(-1, *grid), refined, *both))
        parts: list[Tensor | None] = [None] * 5
        if scored:
            parts = [torch.cat(part) for part in zip(*scored, strict=True)]
        places, *found = map(gather_in_order, parts)
        found = [part[places.argsort()] for part in found]
        self.maps, self.images, self.embeddings = found[0], found[1], Embeddings(*found[2:])
        self.encoding_seconds = encoding
        self.seconds = time.perf_counter() - start - encoding

    def image_scores(self) -> Tensor:
        """Return ``[N]`` image scores, higher = more anomalous.

        Raises:
            RuntimeError: Before the scores exist.
        """
        if self.images is None:
            msg = "memory scores exist only once a fit has started"
            raise RuntimeError(msg)
        return self.images

    def state_dict(self) -> dict[str, Any]:
        """Return the scores."""
        embeddings = None if self.embeddings is None else tuple(self.embeddings)
        scores = {"maps": self.maps, "images": self.images, "embeddings": embeddings}
        return scores | {"seconds": (self.seconds, self.encoding_seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.maps, self.images = state_dict["maps"], state_dict["images"]
        embeddings = state_dict["embeddings"]
        self.embeddings = None if embeddings is None else Embeddings(*embeddings)
        self.seconds, self.encoding_seconds = state_dict["seconds"]


def _takes_parts(settings: MemorySettings) -> bool:
    """Whether images may be scored a part at a time, as queries of their own, with equal results.

    Queries are not recognised as the stored images they are, so none could be left out; and where
    cosines are rounded, a tiny difference would become a step.
    """
    expected = settings.ensemble == "expected" and settings.unit == "image"
    return expected and not settings.leave_self_out
