"""Keeps one checkpoint of a run up to date, so that nothing is lost when it is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L

from meds_plugin.distributed.ranks import from_all
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.training.stages import StagePlan

__all__ = ["RunCheckpoint"]


class RunCheckpoint(L.Callback):
    """Write the checkpoint after stage 1, every so many steps, and at the end of every stage.

    Args:
        path: The file; replaced only by a complete one.
        plan: The stages.
        every: Steps between two checkpoints.

    Raises:
        UserError: If that is no positive number.
    """

    def __init__(self, path: Path, plan: StagePlan, *, every: int) -> None:
        if not isinstance(every, int) or every < 1:
            msg = f"checkpoint_every must be a number of steps, at least 1, got {every!r}"
            raise UserError(msg)
        self.path = path
        self.every = every
        self._ends = {stage.end for stage in plan.stages}
        self._saved = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make sure that all ranks have the same folder.

        Raises:
            UserError: If they do not.
        """
        del trainer, pl_module, stage
        paths = sorted({str(path) for path in from_all(self.path.resolve().parent)})
        if len(paths) > 1:
            msg = f"the ranks' run folders differ ({', '.join(paths)}): give one, hydra.run.dir=DIR"
            raise UserError(msg)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what stage 1 found; a resumed run has it already."""
        del pl_module
        self._saved = trainer.global_step
        if trainer.global_step == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last weights where the trainer stopped early."""
        del pl_module
        if trainer.global_step != self._saved:
            self.save(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time."""
        del pl_module, outputs, batch, batch_idx
        step = trainer.global_step
        if step != self._saved and (step % self.every == 0 or step in self._ends):
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint; call it on every rank."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(self.path)
        self._saved = trainer.global_step
