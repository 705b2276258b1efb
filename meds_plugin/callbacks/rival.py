"""A rival in the place of the three stages: fitted to frozen features before any training."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import nn

from meds_plugin.callbacks.trainer import shows_progress, training_stream
from meds_plugin.distributed.ranks import gather_in_order, rank_and_world, share_out
from meds_plugin.encoding.patch_features import EncodedFeatures
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from meds_plugin.encoders.base import FrozenEncoder
    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.rivals.base import Fit, Rival, Scores
    from meds_plugin.training.stream import TrainingStream

__all__ = ["RivalCallback"]


class RivalCallback(L.Callback):
    """Fit a rival to each category's training images.

    Args:
        rival: The method.
        encoder: What its features are made by.
        seed: The run's seed.

    Attributes:
        features: The module that makes them.
        maps: ``[N, h, w]`` scores of the training images' patches, higher = more anomalous;
            ``None`` before the fit.
        images: ``[N]`` their image scores, likewise.
        seconds: Time the fit took, encoding included.
    """

    def __init__(self, rival: Rival, encoder: FrozenEncoder, *, seed: int) -> None:
        self.rival = rival
        self.features = rival.features(encoder)
        # Neither DDP nor an optimiser takes a module that has nothing to train.
        self.features.register_parameter("idle", nn.Parameter(torch.zeros(())))
        self.seed = seed
        self.maps: Tensor | None = None
        self.images: Tensor | None = None
        self.seconds = 0.0
        self._stream: TrainingStream | None = None
        self._fits: dict[str, Fit] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The rival's settings by name."""
        return asdict(cast("Any", self.rival))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Get at the training images; what an earlier fit left is dropped."""
        if stage == "fit":
            self.maps = self.images = None
            self._fits = {}
            self._stream = training_stream(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit the rival; each rank takes some categories, and all get all scores."""
        if self._stream is None:
            return
        start = time.perf_counter()
        images, progress = self._stream.images, shows_progress(trainer)
        groups = group_indices(images.reader.categories)
        rank, world = rank_and_world()
        costs = {name: float(len(members)) for name, members in groups.items()}
        owners = share_out(costs, world, divisible=False)
        scored: list[tuple[Tensor, Tensor, Tensor]] = []
        for name, members in groups.items():
            if owners[name] != rank:
                continue
            label = f"features of {name}" if progress else None
            features = self._of(images, members.tolist(), pl_module.device, label)
            fit = self.rival.fit(features, group=name, seed=self.seed, progress=progress)
            self._fits[name] = fit
            scored.append((members, _on_grid(fit.training, features), fit.training.images))
        parts: list[Tensor | None] = [None] * 3
        if scored:
            parts = [torch.cat(part) for part in zip(*scored, strict=True)]
        places, maps, scores = map(gather_in_order, parts)
        self.maps, self.images = maps[places.argsort()], scores[places.argsort()]
        self.seconds = time.perf_counter() - start

    def score(
        self,
        images: EncodedImages,
        indices: Sequence[int],
        *,
        group: str,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Score other images of a category; call it on every rank.

        Args:
            images: The images and what encodes them.
            indices: Which of them.
            group: The category.
            device: Where they are encoded.

        Returns:
            ``[n, h, w]`` scores of patches and ``[n]`` of images, by the rival's own rule.
        """
        fit = self._fits.get(group)
        if fit is None:
            return gather_in_order(None), gather_in_order(None)
        features = self._of(images, indices, device)
        scores = fit.score(features)
        return gather_in_order(_on_grid(scores, features)), gather_in_order(scores.images)

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` as maps ``[n, H, W]`` of pixels, as the rival makes them."""
        return self.rival.pixel_maps(maps, size)

    def _of(
        self,
        images: EncodedImages,
        indices: Sequence[int],
        device: torch.device,
        progress: str | None = None,
    ) -> EncodedFeatures:
        layers = getattr(self.features, "layers", ())
        return EncodedFeatures(images, indices, device=device, layers=layers, progress=progress)


def _on_grid(scores: Scores, features: EncodedFeatures) -> Tensor:
    return scores.maps.view(-1, *features.grid)
