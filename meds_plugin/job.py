"""One run from configuration to results: data, model, fit, ranking, evaluation."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from meds_plugin.callbacks.base import shows_progress
from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from meds_plugin.callbacks.stage_bar import StageBar
from meds_plugin.data import AnomalyDataModule, BadFilesError, DataSettings
from meds_plugin.ensemble import MemorySettings
from meds_plugin.errors import UserError
from meds_plugin.evaluation import EvaluationProtocol
from meds_plugin.frozen_encoder import FrozenEncoder
from meds_plugin.optim import OptimizerSettings
from meds_plugin.probe_images import random_images
from meds_plugin.report import print_report
from meds_plugin.rng import torch_seeded
from meds_plugin.runfolder import RunFolder, ranking_metrics
from meds_plugin.stages import plan_stages
from meds_plugin.testing import evaluate, scores_itself
from meds_plugin.wrapper import MeDSWrapper

__all__ = ["resume", "run"]

log = logging.getLogger(__name__)

# Set to something else than 0 in every process but the one that looks after the folder.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


def run(config: DictConfig, path: Path, *, resuming: bool = False) -> dict[str, Any]:
    """Do everything a configuration asks for.

    Args:
        config: The composed configuration.
        path: The run's folder.
        resuming: Go on from the folder's checkpoint, if it has one.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: If the input is wrong, or the folder holds a run that is not to be resumed.
    """
    folder = RunFolder(path)
    first = all(os.environ.get(name, "0") == "0" for name in _RANKS)
    if first and not resuming and folder.manifest.exists():
        msg = f"{path} holds a run already: go on with resume={path}, or give another folder"
        raise UserError(msg)
    _quieten()
    # What can be wrong is built in order of what it costs to find out.
    protocol = EvaluationProtocol(**_plain(config.evaluation))
    _anchor(config)
    datamodule = _data(config)
    model = _model(config, datamodule)
    trainer = _trainer(config, folder, model)
    if first and not resuming:
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
    try:
        datamodule.setup("fit")
    except BadFilesError as error:
        if first:
            folder.write_problems(error.problems)
        raise
    if first:
        print(datamodule.summary)
        folder.write_skipped(datamodule.skipped)
        folder.write_manifest(datamodule.manifest_rows())
    checkpoint = folder.checkpoint if resuming and folder.checkpoint.is_file() else None
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    if not model.plan.stages:
        trainer.save_checkpoint(folder.checkpoint)
    start = time.perf_counter()
    scores = model.training_scores()
    results = evaluate(model, datamodule, protocol=protocol, progress=shows_progress(trainer))
    seconds = {"memory": model.memory.seconds if model.memory else 0.0}
    seconds |= {"distill": 0.0, "finetune": 0.0} | model.seconds
    seconds["evaluate"] = time.perf_counter() - start
    ranking = ranking_metrics(datamodule.train.samples, scores.score)
    if ranking["auprc"] is None:
        reason = "no image is known to have been added to the training set"
        results["skipped"]["ranking"] = dict.fromkeys(("auprc", "inspection_depth"), reason)
    metrics = {
        **results,
        "ranking": ranking,
        "noise": asdict(datamodule.noise_report),
        "protocol": _protocol(config, model, protocol),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    if trainer.is_global_zero:
        folder.write_ranking(datamodule.train.samples, scores)
        folder.write_selection(model.selection.history if model.selection else [])
        folder.write_metrics(metrics)
        print_report(metrics, folder.path)
    return metrics


def resume(path: Path, overrides: list[str]) -> None:
    """Go on with a run that stopped; leave a finished one as it is.

    Args:
        path: The run's folder.
        overrides: What was given on the command line; only ``trainer.*`` may stand beside resume.

    Raises:
        UserError: If the folder holds no run, or something else was overridden.
    """
    config_file = path / "config.yaml"
    if not config_file.is_file():
        msg = f"resume={path}: no run there (no config.yaml); give the folder of a run"
        raise UserError(msg)
    others = [o for o in overrides if not o.lstrip("+").startswith(("resume=", "trainer."))]
    if others:
        msg = f"resume takes everything from the run: leave out {' '.join(others)}"
        raise UserError(msg)
    if _finished(path / "metrics.json"):
        log.info("%s is finished: nothing to do", path)
        return
    config = OmegaConf.load(config_file)
    if not isinstance(config, DictConfig):
        msg = f"{config_file} is no configuration of a run"
        raise UserError(msg)
    given = OmegaConf.from_dotlist([o.lstrip("+") for o in overrides if "trainer." in o])
    run(DictConfig(OmegaConf.merge(config, given)), path, resuming=True)


def _finished(metrics: Path) -> bool:
    """Whether the results are of all steps; `trainer.max_steps` may have ended a run early."""
    if not metrics.is_file():
        return False
    protocol = json.loads(metrics.read_text())["protocol"]
    return bool(protocol["steps_done"] >= protocol["total_steps"])


def _build(node: DictConfig) -> Any:
    """Instantiate a node; wrong input inside it stays a `UserError`, however deep it is.

    Raises:
        UserError: That one, or what names the node whose arguments are of a wrong kind.
    """
    try:
        return instantiate(node)
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, (TypeError, ValueError)):
            key, target = node._get_full_key(None), node.get("_target_")
            msg = f"{key} ({target}) cannot be made: {type(cause).__name__}: {cause}"
            raise UserError(msg) from error
        raise


def _anchor(config: DictConfig) -> None:
    """Make the user's paths absolute: a run may be resumed from another working directory."""
    for node, key in (
        (config.data, "root"),
        (config.data, "file"),
        (config.data, "exclude"),
        (config, "noise_file"),
        (config.encoder, "weights"),
    ):
        value = node.get(key)
        if value is not None and value != "random":
            # A name such as 2024 comes as a number.
            node[key] = str(Path(str(value)).expanduser().absolute())


def _data(config: DictConfig) -> AnomalyDataModule:
    data = config.data
    return AnomalyDataModule(
        source=_build(data.source),
        settings=DataSettings(
            noise=config.noise,
            noise_protocol=config.noise_protocol,
            noise_definition=config.noise_definition,
            noise_file=config.noise_file,
            exclude=data.exclude,
            on_error=data.on_error,
            max_pixels=data.max_pixels,
            outside_links=data.outside_links,
            check=data.check,
        ),
        seed=config.seed,
        image_size=_plain(data.image_size),
        crop=_plain(data.crop),
        batch_size=data.batch_size,
        num_workers=data.num_workers,
    )


def _model(config: DictConfig, datamodule: AnomalyDataModule) -> MeDSWrapper:
    memory = MemorySettings(**_plain(config.memory))
    optimizer = OptimizerSettings(**_plain(config.backbone.optimizer))
    # The wrapper checks this again, but only once an encoder is there, perhaps downloaded.
    plan_stages(
        config.method, distill_steps=config.steps.distill, finetune_steps=config.steps.finetune
    )
    config.encoder.image_size = list(datamodule.preprocess.input_size)
    with torch_seeded(config.seed, "detector"):
        detector = _build(config.backbone.detector)
    return MeDSWrapper(
        detector,
        method=config.method,
        distill_steps=config.steps.distill,
        finetune_steps=config.steps.finetune,
        memory=memory,
        distill_loss=config.distillation.loss,
        selection_k=config.selection.k,
        selection_top=config.selection.top,
        optimizer=optimizer,
        example=random_images(*datamodule.preprocess.input_size, torch.device("cpu")),
        seed=config.seed,
        cache_gb=config.cache_gb,
        scoring_batch=config.scoring_batch,
        compile=config.compile,
    )


def _trainer(config: DictConfig, folder: RunFolder, model: MeDSWrapper) -> L.Trainer:
    settings = {key: value for key, value in _plain(config.trainer).items() if value is not None}
    settings.setdefault("max_steps", model.total_steps)
    if str(settings["precision"]).endswith("-true") and settings["precision"] != "32-true":
        msg = (
            f"trainer.precision={settings['precision']}: scores need float32 weights; "
            "take 32-true, bf16-mixed or 16-mixed"
        )
        raise UserError(msg)
    callbacks: list[L.Callback] = [
        RunCheckpoint(folder.checkpoint, model.plan, every=config.checkpoint_every)
    ]
    if config.trainer.enable_progress_bar:
        callbacks.append(StageBar(model.plan))
    try:
        return L.Trainer(
            **settings,
            callbacks=callbacks,
            logger=CSVLogger(folder.path, name="logs"),
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
    except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        msg = f"trainer: {error}"
        raise UserError(msg) from error


def _quieten() -> None:
    """Keep Lightning's small talk out of the output; its warnings about us are beside the point."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*in eval mode at the start of training.*",
        ".*LeafSpec.*",
        ".*many workers.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _protocol(
    config: DictConfig, model: MeDSWrapper, evaluation: EvaluationProtocol
) -> dict[str, Any]:
    return {
        "method": config.method,
        "backbone": config.backbone.name,
        "encoder": config.encoder.model if _has_encoder(model) else None,
        "seed": config.seed,
        "steps": {stage.name: stage.steps for stage in model.plan.stages},
        "total_steps": model.total_steps,
        "steps_done": model.global_step,
        "batch_size": config.data.batch_size,
        "image_size": _plain(config.data.image_size),
        "crop": _plain(config.data.crop),
        "input_size": _plain(config.encoder.image_size),
        "memory": _plain(config.memory),
        "selection": _plain(config.selection),
        # The detector's own image score knows no share.
        "evaluation": evaluation.as_dict() | ({"image_top": None} if scores_itself(model) else {}),
    }


def _has_encoder(model: MeDSWrapper) -> bool:
    """Whether the detector has taken the encoder of ``encoder=``; not all have a use for it."""
    return any(isinstance(part, FrozenEncoder) for part in model.detector.modules())


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
