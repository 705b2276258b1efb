"""One run from configuration to results: data, model, fit, ranking, evaluation."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from meds_plugin.callbacks.base import shows_progress
from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from meds_plugin.callbacks.stage_bar import StageBar
from meds_plugin.config.build import build, build_detector, plain
from meds_plugin.data import AnomalyDataModule, BadFilesError, DataSettings
from meds_plugin.detectors.example_images import random_images
from meds_plugin.distributed.launch import launched_rank
from meds_plugin.encoders.base import FrozenEncoder
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.evaluation.alarms import check_rate
from meds_plugin.evaluation.calibration import calibrate
from meds_plugin.evaluation.evaluate import evaluate, scores_itself
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.figures import draw_after_run
from meds_plugin.figures.collect import TestExamples, theorem_curve
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.metrics.contamination import contamination_report
from meds_plugin.review import write_review
from meds_plugin.review.heatmaps import training_maps
from meds_plugin.review.rounds import print_comparison
from meds_plugin.runs.report import print_report
from meds_plugin.runs.state import anchor_paths, is_finished
from meds_plugin.runs.write import RunFolder, ranking_metrics
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.training.stages import plan_stages
from meds_plugin.utils.errors import UserError
from meds_plugin.wrapper import MeDSWrapper

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["resume", "run"]

log = logging.getLogger(__name__)


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
    first = launched_rank() == 0  # looks after the folder
    if first and not resuming and folder.manifest.exists():
        msg = f"{path} holds a run already: go on with resume={path}, or give another folder"
        raise UserError(msg)
    _quieten()
    review = _flag(config, "review")
    # What can be wrong is built in order of what it costs to find out.
    protocol = EvaluationProtocol(**plain(config.evaluation))
    rate = check_rate(config.get("false_alarm_rate", 0.01))  # runs of before lack it
    anchor_paths(config)
    datamodule = _data(config)
    model = _model(config, datamodule, folder)
    datamodule.preprocess.normalization = model.normalization
    trainer = _trainer(config, folder, model)
    if first and not resuming:
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
    _set_up(datamodule, folder if first else None)
    checkpoint = folder.checkpoint if resuming and folder.checkpoint.is_file() else None
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    if not model.plan.stages:
        trainer.save_checkpoint(folder.checkpoint)
    start = time.perf_counter()
    scores = model.training_scores()
    figures = config.get("figures", True)  # runs of before lack it
    examples = TestExamples(datamodule.test)
    results = evaluate(
        model,
        datamodule,
        protocol=protocol,
        progress=shows_progress(trainer),
        on_maps=examples.add if figures else None,
    )
    size = datamodule.preprocess.input_size
    thresholds = calibrate(model, scores.selected, input_size=size, protocol=protocol, rate=rate)
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
    maps = training_maps(model) if review else None
    gap = theorem_curve(model, datamodule.train) if figures else []
    if not trainer.is_global_zero:
        model.close_cache()
    trainer.strategy.barrier()  # what others use cannot be removed
    model.close_cache(remove=trainer.is_global_zero)
    if trainer.is_global_zero:
        train = datamodule.train
        dirt, probability = contamination_report(scores.score.cpu(), train.categories, train.groups)
        folder.write_ranking(train.samples, scores, probability)
        folder.write_selection(model.selection.history if model.selection else [])
        folder.write_thresholds(thresholds)
        folder.write_contamination(dirt)
        write_review(folder.path, train, maps, progress=shows_progress(trainer))
        folder.write_metrics(metrics)
        print_report(metrics, folder.path, dirt)
        print_comparison(config.data.exclude, folder.path)
        if figures:
            print(draw_after_run(folder, gap, examples))
    return metrics


def _set_up(datamodule: AnomalyDataModule, folder: RunFolder | None) -> None:
    """Find the images and, where there is a folder, write down which they are."""
    try:
        datamodule.setup("fit")
    except BadFilesError as error:
        if folder is not None:
            folder.write_problems(error.problems)
        raise
    if folder is not None:
        print(datamodule.summary)
        folder.write_skipped(datamodule.skipped)
        folder.write_manifest(datamodule.manifest_rows())


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
    if is_finished(path / "metrics.json"):
        log.info("%s is finished: nothing to do", path)
        return
    config = OmegaConf.load(config_file)
    if not isinstance(config, DictConfig):
        msg = f"{config_file} is no configuration of a run"
        raise UserError(msg)
    given = OmegaConf.from_dotlist([o.lstrip("+") for o in overrides if "trainer." in o])
    run(DictConfig(OmegaConf.merge(config, given)), path, resuming=True)


def _data(config: DictConfig) -> AnomalyDataModule:
    data = config.data
    return AnomalyDataModule(
        source=build(data.source),
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
        image_size=plain(data.image_size),
        crop=plain(data.crop),
        batch_size=data.batch_size,
        num_workers=data.num_workers,
    )


def _model(config: DictConfig, datamodule: AnomalyDataModule, folder: RunFolder) -> MeDSWrapper:
    memory = MemorySettings(**plain(config.memory))
    optimizer = OptimizerSettings(**plain(config.backbone.optimizer))
    cache = CacheSettings(**plain(config.cache))
    if cache.dir is None:
        cache = replace(cache, dir=str(folder.path / "cache"), shared=False)
    # The wrapper checks this again, but only once an encoder is there, perhaps downloaded.
    plan_stages(
        config.method, distill_steps=config.steps.distill, finetune_steps=config.steps.finetune
    )
    config.encoder.image_size = list(datamodule.preprocess.input_size)
    return MeDSWrapper(
        build_detector(config),
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
        cache=cache,
        scoring_batch=config.get("scoring_batch"),  # runs of before lack both
        compile=config.get("compile", False),
    )


def _trainer(config: DictConfig, folder: RunFolder, model: MeDSWrapper) -> L.Trainer:
    settings = {key: value for key, value in plain(config.trainer).items() if value is not None}
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
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
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
        "image_size": plain(config.data.image_size),
        "crop": plain(config.data.crop),
        "input_size": plain(config.encoder.image_size),
        "normalization": model.normalization.as_dict(),
        "memory": plain(config.memory),
        "selection": plain(config.selection),
        # The detector's own image score knows no share.
        "evaluation": evaluation.as_dict() | ({"image_top": None} if scores_itself(model) else {}),
    }


def _flag(config: DictConfig, key: str) -> bool:
    """Return a setting that is on or off; runs from before it was there have it off."""
    value = config.get(key, False)
    if not isinstance(value, bool):
        msg = f"{key} must be true or false, got {value!r}"
        raise UserError(msg)
    return value


def _has_encoder(model: MeDSWrapper) -> bool:
    """Whether the detector has taken the encoder of ``encoder=``; not all have a use for it."""
    return any(isinstance(part, FrozenEncoder) for part in model.detector.modules())
