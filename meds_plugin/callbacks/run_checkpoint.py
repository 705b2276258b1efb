"""Keeps one checkpoint of a run up to date, so that nothing is lost when it is stopped."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from meds_plugin.distributed.ranks import from_all, largest
from meds_plugin.utils.atomic import replacing
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.stopping import Stopped, catch_signals, defer_stop, stop_requested

if TYPE_CHECKING:
    from collections.abc import Callable

    from meds_plugin.training.stages import StagePlan

__all__ = ["RunCheckpoint", "read_checkpoint"]


class _AtomicFiles(TorchCheckpointIO):
    """Replaces a checkpoint only with a complete one and leaves no other files.

    Lightning's default writes to the system's temporary folder first.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        del storage_options
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


def read_checkpoint(file: Path) -> dict[str, Any] | None:
    """Read a run's checkpoint, and refuse a damaged one.

    Args:
        file: The run's checkpoint.

    Returns:
        Its content; ``None`` if there is no such file.

    Raises:
        UserError: If it is damaged or not of a run.
    """
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            whole = archive.testzip() is None  # torch does not verify checksums
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        whole = whole and None not in (saved["meds"], saved["config"])
    except Exception:  # reading a foreign file fails in many ways
        whole = False
    if not whole:
        msg = (
            f"{file} is damaged, or not of this run: replace it with an intact copy, or delete it "
            "to let resume restart the training"
        )
        raise UserError(msg)
    return saved


class RunCheckpoint(L.Callback):
    """Write the checkpoint after stage 1, every so many steps, and at the end of every stage.

    A run that is asked to stop saves after its current step, then ends. Asked again, it ends at
    once.

    Args:
        path: The file.
        plan: The stages.
        every: Steps between two checkpoints.
        config: Returns the run's configuration, which is saved, too.

    Raises:
        UserError: If `every` is no positive number.
    """

    def __init__(
        self,
        path: Path,
        plan: StagePlan,
        *,
        every: int,
        config: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            msg = f"checkpoint_every must be a number of steps, at least 1, got {every!r}"
            raise UserError(msg)
        self.path = path
        self.every = every
        self._config = config
        self._ends = {stage.end for stage in plan.stages}
        self._saved = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make checkpoints atomic, and check that all ranks have the same folder.

        Raises:
            UserError: If folders differ, or only some ranks see the checkpoint to go on with.
        """
        del pl_module, stage
        trainer.strategy.checkpoint_io = _AtomicFiles()
        paths = sorted({str(path) for path in from_all(self.path.resolve().parent)})
        if len(paths) > 1:
            msg = f"the ranks' run folders differ ({', '.join(paths)}): give one, hydra.run.dir=DIR"
            raise UserError(msg)
        if len({*from_all(trainer.ckpt_path is None)}) > 1:
            msg = (
                f"{self.path} is there for some ranks only: to resume, give all machines the same "
                "folder, or a copy of it"
            )
            raise UserError(msg)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what stage 1 found; a resumed run has it already."""
        del pl_module
        catch_signals()  # Lightning has just taken them
        defer_stop(deferred=True)
        self._saved = trainer.global_step
        if trainer.global_step == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last weights where the trainer stopped early."""
        del pl_module
        if trainer.global_step != self._saved:
            self.save(trainer)
        defer_stop(deferred=False)
        if ending := largest(stop_requested()):
            raise Stopped(ending)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop deferring signals to the end of the step."""
        del trainer, pl_module, exception
        defer_stop(deferred=False)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time, or if the run was asked to stop."""
        del pl_module, outputs, batch, batch_idx
        step, ending = trainer.global_step, largest(stop_requested())
        if step != self._saved and (ending or step % self.every == 0 or step in self._ends):
            self.save(trainer)
        if ending:
            raise Stopped(ending)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration, by which `resume` knows whether it was edited."""
        del trainer, pl_module
        checkpoint["config"] = self._config()

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint; call it on every rank."""
        trainer.save_checkpoint(self.path)
        self._saved = trainer.global_step
