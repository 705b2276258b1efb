"""Stage 2: train the detector to predict the memory scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L

from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
from meds_plugin.callbacks.trainer import training_stream
from meds_plugin.encoding.scoring import selection_scores
from meds_plugin.training.distillation import distillation_loss

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from meds_plugin.training.distillation import DistillLoss
    from meds_plugin.training.stream import TrainingStream

__all__ = ["DistillationCallback"]


class DistillationCallback(L.Callback):
    """Hold the targets of distillation, and the distilled model's scores at its end.

    `MeDSWrapper` gets the loss of each distillation step from it; another LightningModule may do so
    in its ``training_step``.

    Args:
        end: Step at which distillation ends and the distilled model is scored.
        targets: ``[N, h, w]`` memory scores by training index; default: those of the trainer's
            `MemoryEnsembleCallback`.
        loss: ``l2`` (reference) or ``l1``.
        weight: Factor of the loss; the reference's is 10.
        top: Share of a map's largest values that make the image score.

    Attributes:
        scores: ``[N]`` image scores of the distilled model, higher = more anomalous; ``None``
            before the end of distillation. Saved in checkpoints.
    """

    def __init__(
        self,
        end: int,
        targets: Tensor | None = None,
        *,
        loss: DistillLoss = "l2",
        weight: float = 10.0,
        top: float = 0.01,
    ) -> None:
        self.end = end
        self.targets = targets
        self._given = targets
        self.kind = loss
        self.weight = weight
        self.top = top
        self.scores: Tensor | None = None
        self._stream: TrainingStream | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen for the end of distillation and drop the state of an earlier fit."""
        if stage != "fit":
            return
        self.targets, self.scores = self._given, None
        self._stream = training_stream(trainer, pl_module)
        self._stream.on_pass(lambda step: self._finish(step, pl_module.device))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the memory's scores as targets.

        Raises:
            ValueError: If there are none.
        """
        del pl_module
        if self.targets is not None:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MemoryEnsembleCallback):
                self.targets = callback.maps
        if self.targets is None:
            msg = (
                "distillation has no targets: give some, or put a MemoryEnsembleCallback before it"
            )
            raise ValueError(msg)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the distilled model if no other stage follows."""
        self._finish(trainer.global_step, pl_module.device)

    def loss(self, maps: Tensor, indices: Tensor) -> Tensor:
        """Return the distillation loss of a batch.

        Args:
            maps: ``[B, h, w]`` anomaly maps with gradient.
            indices: ``[B]`` training indices of the images.
        """
        if self.targets is None:
            msg = "distillation targets exist only once a fit has started"
            raise RuntimeError(msg)
        self.targets = self.targets.to(maps.device)
        targets = self.targets[indices]
        return distillation_loss(maps, targets, kind=self.kind, weight=self.weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the distilled model's scores; the targets belong to the memory."""
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.scores = state_dict["scores"]

    def _finish(self, step: int, device: torch.device) -> None:
        if step >= self.end and self.scores is None and self._stream is not None:
            self.scores = selection_scores(self._stream.images, top=self.top, device=device)
