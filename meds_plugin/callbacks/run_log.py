"""Hands the trainer's loggers what happens in a fit, besides the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch

if TYPE_CHECKING:
    from meds_plugin.callbacks.progressive_selection import ProgressiveSelectionCallback
    from meds_plugin.training.stages import StagePlan

__all__ = ["RunLog"]

_OF_A_SELECTION = ("kept", "threshold", "median", "mad", "contaminated")


class RunLog(L.Callback):
    """Log the learning rate and the stage of each step, and every selection.

    Names: ``lr``, ``stage`` (0 for the first one of the method) and, for each group of images,
    ``selection/GROUP/`` with ``kept``, ``threshold``, ``median``, ``mad`` and, where it is known,
    ``contaminated``. The first step is logged however seldom the trainer logs.

    Args:
        plan: The stages.
        selection: What selects, if the method does.
    """

    def __init__(self, plan: StagePlan, selection: ProgressiveSelectionCallback | None) -> None:
        self.plan = plan
        self.selection = selection
        self._logged = 0  # selections

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        del trainer, pl_module
        if stage == "fit":
            self._logged = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rate and the stage of the step that begins."""
        del batch, batch_idx
        stage = self.plan.stages.index(self.plan.at(trainer.global_step))
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        # A number would be copied to the device, which waits for all that it has to do.
        pl_module.log("lr", torch.tensor(rate))
        pl_module.log("stage", torch.tensor(float(stage)))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log selections since the step before, and the first step."""
        del pl_module, outputs, batch, batch_idx
        if trainer.global_step == 1 and getattr(trainer, "log_every_n_steps", 1) > 1:
            first = {k: float(v) for k, v in trainer.callback_metrics.items() if "_epoch" not in k}
            _log(trainer, first, 0)
        history = self.selection.history if self.selection else []
        for row in history[self._logged :]:
            name = f"selection/{row['category']}"
            values = {key: row[key] for key in _OF_A_SELECTION if row[key] is not None}
            _log(trainer, {f"{name}/{key}": float(v) for key, v in values.items()}, row["step"])
        self._logged = len(history)

    def state_dict(self) -> dict[str, Any]:
        """Return how many selections were logged."""
        return {"logged": self._logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._logged = state_dict["logged"]


def _log(trainer: L.Trainer, values: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
