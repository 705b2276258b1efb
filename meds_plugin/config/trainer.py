"""Builds a run's trainer: its loggers, its checkpoints, its bars."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from meds_plugin.callbacks.stage_bar import StageBar
from meds_plugin.callbacks.trainer import check_trainer
from meds_plugin.config.build import plain
from meds_plugin.config.loggers import build_loggers
from meds_plugin.config.mistakes import check_names
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_whole

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from meds_plugin.training.stages import StagePlan

__all__ = ["build_trainer"]

# Keys of the trainer that a run sets itself.
_OWN = {
    "callbacks": "in Python, pass them to your own Trainer",
    "enable_checkpointing": "model.ckpt is written every checkpoint_every steps",
    "logger": "choose with logger=csv, tensorboard, wandb, mlflow, comet, many or none",
    "num_sanity_val_steps": "there is no validation",
}


def build_trainer(
    config: DictConfig, plan: StagePlan, *, folder: Path, checkpoint: Path, sweep: Path | None
) -> L.Trainer:
    """Build the trainer of a run's configuration.

    Args:
        config: The whole configuration.
        plan: The stages.
        folder: The run's folder.
        checkpoint: Where it is saved.
        sweep: The folder of the sweep that the run belongs to, if any.

    Raises:
        UserError: If a setting is wrong.
    """
    given = {key: value for key, value in plain(config.trainer).items() if value is not None}
    check_names(given, inspect.signature(L.Trainer).parameters, "trainer")
    given.setdefault("max_steps", plan.total_steps)
    every = config.validate_every
    if every is not None:
        if not is_whole(every) or every < 1:
            msg = f"validate_every must be a whole number of steps, 1 or more, got {every!r}"
            raise UserError(msg)
        given |= {"val_check_interval": every, "check_val_every_n_epoch": None}
    for key, instead in _OWN.items():
        if key in given:
            msg = f"trainer.{key} is set by the run: {instead}"
            raise UserError(msg)
    loggers = build_loggers(config.logger, folder, sweep=sweep)
    callbacks: list[L.Callback] = [
        RunCheckpoint(
            checkpoint,
            plan,
            every=config.checkpoint_every,
            config=lambda: plain(config),
        )
    ]
    if config.trainer.enable_progress_bar:
        callbacks.append(StageBar(plan))
    try:
        trainer = L.Trainer(
            **given,
            callbacks=callbacks,
            logger=loggers or False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
    except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        msg = f"trainer: {error}"
        raise UserError(msg) from error
    check_trainer(trainer)
    return trainer
