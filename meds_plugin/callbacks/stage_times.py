"""Measures how long each stage takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning as L

if TYPE_CHECKING:
    from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
    from meds_plugin.callbacks.rival import RivalCallback
    from meds_plugin.training.stages import StagePlan
    from meds_plugin.training.stream import TrainingStream

__all__ = ["StageTimes", "stage_seconds"]


class StageTimes(L.Callback):
    """Book the time of every step, and of what happens before the next, to the step's stage.

    Args:
        plan: The stages.

    Attributes:
        seconds: Time spent in each stage so far, selection passes included; saved in checkpoints.
    """

    def __init__(self, plan: StagePlan) -> None:
        self.plan = plan
        self.seconds: dict[str, float] = {stage.name: 0.0 for stage in plan.stages}
        self._clock: float | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        del trainer, pl_module
        if stage == "fit":
            self.seconds = dict.fromkeys(self.seconds, 0.0)
            self._clock = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock with the first step."""
        del trainer, pl_module, batch, batch_idx
        if self._clock is None:
            self._clock = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Book what passed since the last step."""
        del pl_module, outputs, batch, batch_idx
        now = time.perf_counter()
        stage = self.plan.at(max(0, trainer.global_step - 1)).name
        self.seconds[stage] += now - (self._clock or now)
        self._clock = now

    def state_dict(self) -> dict[str, Any]:
        """Return the times."""
        return dict(self.seconds)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.seconds.update(state_dict)


def stage_seconds(
    times: StageTimes,
    stream: TrainingStream | None,
    memory: MemoryEnsembleCallback | None,
    rival: RivalCallback | None,
) -> dict[str, float]:
    """Return the seconds of all that a fit did, by name.

    ``encode`` is the frozen part's pass over the training images (of this process, also where a
    fit was resumed), ``memory`` stage 1 after it, ``fit`` a rival with its encoding.
    """
    seconds = {"encode": stream.images.seconds if stream else 0.0}
    if memory is not None:
        seconds["encode"] += memory.encoding_seconds
        seconds["memory"] = memory.seconds
    if rival is not None:
        seconds["fit"] = rival.seconds
    return seconds | times.seconds
