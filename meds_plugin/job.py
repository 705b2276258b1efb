"""One run from configuration to results: prepare, fit, score, report."""

from __future__ import annotations

import logging
import shlex
import time
import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from meds_plugin.callbacks.run_checkpoint import read_checkpoint
from meds_plugin.callbacks.trainer import shows_progress
from meds_plugin.config.build import (
    build,
    build_datamodule,
    build_detector,
    build_settings,
    plain,
    settle_sizes,
)
from meds_plugin.config.paths import anchor_paths
from meds_plugin.config.trainer import build_trainer
from meds_plugin.data import BadFilesError
from meds_plugin.detectors.example_images import random_images
from meds_plugin.encoders.base import FrozenEncoder
from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.evaluation.alarms import check_false_alarm_rate
from meds_plugin.evaluation.calibration import calibrate
from meds_plugin.evaluation.evaluate import detector_scores_images, evaluate
from meds_plugin.evaluation.final_pass import final_pass, small_maps
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.figures import draw_after_run
from meds_plugin.figures.examples import ExampleImages
from meds_plugin.memory.embeddings import of_whole_images
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.metrics.contamination import contamination_report
from meds_plugin.ranking import ranking_metrics
from meds_plugin.review.build import write_review
from meds_plugin.review.comparison import print_comparison
from meds_plugin.rivals import RIVALS
from meds_plugin.runs.logged import final_values, log_pictures
from meds_plugin.runs.read import is_finished, read_config
from meds_plugin.runs.report import print_report
from meds_plugin.runs.settings import edits
from meds_plugin.runs.write import RunFolder
from meds_plugin.selection import SelectionSettings
from meds_plugin.sweeps.sweep import sweep_of
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.training.stages import plan_stages
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.process import launched_rank, peak_memory
from meds_plugin.wrapper import MeDSWrapper

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from meds_plugin.callbacks.training_scores import TrainingScores
    from meds_plugin.data import AnomalyDataModule
    from meds_plugin.evaluation.alarms import AlarmThresholds
    from meds_plugin.memory.embeddings import Embeddings

__all__ = ["resume", "run"]

log = logging.getLogger(__name__)

# What ends Lightning's training, by key of the trainer.
_LIMITS = ("fast_dev_run", "max_epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class _Job:
    """A run that is ready to be fitted."""

    config: DictConfig
    folder: RunFolder
    datamodule: AnomalyDataModule
    model: MeDSWrapper
    trainer: L.Trainer
    protocol: EvaluationProtocol
    false_alarm_rate: float
    seconds: float  # that finding and checking the images took


@dataclass(frozen=True)
class _Results:
    """What a fitted model makes of the images, besides the metrics."""

    metrics: dict[str, Any]  # content of metrics.json
    training: TrainingScores
    maps: torch.Tensor | None  # [N, h, w] of the training images
    alarms: AlarmThresholds | None  # None: no detector was trained
    examples: ExampleImages


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
    job = _prepare(config, path, resuming=resuming)
    _fit(job, resuming=resuming)
    results = _score(job)
    if job.trainer.is_global_zero:
        _report(job, results)
    return results.metrics


def resume(path: Path, overrides: list[str]) -> None:
    """Go on with a run that stopped; leave a finished one as it is.

    Args:
        path: The run's folder.
        overrides: What was given on the command line; only ``trainer.*`` may stand beside resume.

    Raises:
        UserError: If the folder holds no run, or something else was overridden.
    """
    config = read_config(path)
    others = [o for o in overrides if not o.lstrip("+").startswith(("resume=", "trainer."))]
    if others:
        msg = f"resume takes everything from the run: leave out {' '.join(others)}"
        raise UserError(msg)
    if is_finished(path):
        log.info("%s is finished: nothing to do", path)
        return
    saved = read_checkpoint(RunFolder(path).checkpoint)
    if saved and (edited := edits(saved["config"], plain(config))):
        msg = (
            f"{path / 'config.yaml'} was edited after the training began ({'; '.join(edited)}): "
            "undo that, or start a new run"
        )
        raise UserError(msg)
    given = OmegaConf.from_dotlist([o.lstrip("+") for o in overrides if "trainer." in o])
    run(DictConfig(OmegaConf.merge(config, given)), path, resuming=True)


def _prepare(config: DictConfig, path: Path, *, resuming: bool) -> _Job:
    """Build everything in order of what it costs to find out that something is wrong."""
    folder = RunFolder(path)
    first = launched_rank() == 0  # looks after the folder
    if first and not resuming and folder.manifest.exists():
        msg = f"{path} holds a run already: continue it with resume={path}, or give another folder"
        raise UserError(msg)
    _silence_lightning()
    for key in ("review", "figures"):
        if not isinstance(config[key], bool):
            msg = f"{key} must be true or false, got {config[key]!r}"
            raise UserError(msg)
    settle_sizes(config)
    protocol = build_settings(EvaluationProtocol, config.evaluation)
    rate = check_false_alarm_rate(config.false_alarm_rate)
    anchor_paths(config)
    datamodule = build_datamodule(config)
    model = _model(config, datamodule, folder)
    datamodule.preprocess.normalization = model.normalization
    model.protocol = protocol
    trainer = build_trainer(
        config, model.plan, folder=path, checkpoint=folder.checkpoint, sweep=sweep_of(path)
    )
    if first and not resuming:
        folder.write_config(OmegaConf.to_yaml(config, resolve=True))
    start = time.perf_counter()
    try:
        datamodule.setup("fit")
    except BadFilesError as error:
        if first:
            folder.write_problems(error.problems)
        raise
    seconds = time.perf_counter() - start
    if config.data.range == "auto":  # settled now, for all that reads images later
        config.data.range = list(datamodule.preprocess.value_range or ()) or "full"
        if first:
            folder.write_config(OmegaConf.to_yaml(config, resolve=True))
    if first:
        print(datamodule.summary)
        folder.write_skipped(datamodule.skipped)
        folder.write_manifest(datamodule.manifest_rows())
    return _Job(config, folder, datamodule, model, trainer, protocol, rate, seconds)


def _fit(job: _Job, *, resuming: bool) -> None:
    file = job.folder.checkpoint
    checkpoint = file if resuming and file.is_file() else None
    job.trainer.fit(job.model, job.datamodule, ckpt_path=checkpoint, weights_only=True)
    if not job.model.plan.stages:
        job.trainer.save_checkpoint(file)


def _score(job: _Job) -> _Results:
    """Score training and test images; on every rank, and all ranks get all results."""
    model, datamodule, trainer = job.model, job.datamodule, job.trainer
    train, input_size = datamodule.train, datamodule.preprocess.input_size
    model.to(trainer.strategy.root_device)
    start = time.perf_counter()
    alarms = maps = None
    if model.plan.stages and model.stream is not None:
        final = final_pass(
            model.stream.images,
            top=model.selection_top,
            input_size=input_size,
            protocol=job.protocol,
            device=model.device,
            progress=shows_progress(trainer),
        )
        scores, maps = model.training_scores(final.selection), final.maps
        alarms = calibrate(final, scores.selected, train.categories, rate=job.false_alarm_rate)
    else:
        scores = model.training_scores()
        untrained = model.memory or model.rival
        if untrained is not None and untrained.maps is not None:
            layout = model.stream.images.reader.layout if model.stream else None
            maps = small_maps(untrained.maps.float(), layout)
    scored = time.perf_counter()
    examples = ExampleImages(datamodule.test)
    results = evaluate(
        model,
        datamodule,
        protocol=job.protocol,
        progress=shows_progress(trainer),
        on_maps=examples.add if job.config.figures else None,
    )
    stages = dict.fromkeys(("encode", "memory", "distill", "finetune"), 0.0) | model.seconds
    after = {"score": scored - start, "evaluate": time.perf_counter() - scored}
    seconds = {"data": job.seconds, **stages, **after}
    ranking = ranking_metrics(scores.score, train.categories, train.injected)
    if ranking["auprc"] is None:
        reason = "no image is known to have been added to the training set"
        results["skipped"]["ranking"] = dict.fromkeys(("auprc", "inspection_depth"), reason)
    metrics = {
        **results,
        "ranking": ranking,
        "noise": asdict(datamodule.noise_report),
        "cut_short": model.plan.cut_short(model.global_step),
        "protocol": _protocol(job),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "memory_gb": _memory(model.device),
    }
    if not trainer.is_global_zero:
        model.close_cache()
    trainer.strategy.barrier()  # what others use cannot be removed
    model.close_cache(remove=trainer.is_global_zero)
    return _Results(metrics, scores, maps, alarms, examples)


def _report(job: _Job, results: _Results) -> None:
    """Write the run's files, metrics last, and say what came out."""
    folder, train, metrics = job.folder, job.datamodule.train, results.metrics
    start = time.perf_counter()
    contamination, probability = contamination_report(
        results.training.score.cpu(), train.categories, train.groups
    )
    embeddings = _embeddings(job.model)
    faults = job.datamodule.faults
    if faults and embeddings:
        chosen = results.training.selected.cpu().numpy()
        faults = faults.with_wrong_products(train.samples, embeddings.image.numpy(), chosen)
        for line in faults.lines:
            print(line)
    folder.write_ranking(train.samples, results.training, probability, faults)
    folder.write_selection(job.model.selection.history if job.model.selection else [])
    folder.write_thresholds(results.alarms)
    folder.write_contamination(contamination)
    folder.write_embeddings(embeddings)
    if job.config.review and results.maps is not None:
        write_review(
            folder.path,
            train,
            results.maps,
            cut_short=metrics["cut_short"],
            progress=shows_progress(job.trainer),
        )
    metrics["seconds"]["report"] = round(time.perf_counter() - start, 3)
    folder.write_metrics(metrics)
    selected = results.training.selected.tolist() if job.model.selection else None
    print_report(metrics, folder.path, contamination, selected)
    if metrics["cut_short"]:
        given = [key for key in _LIMITS if job.config.trainer.get(key) is not None]
        lifted = " ".join(f"trainer.{key}=null" for key in given)
        again = f"{shlex.quote(f'resume={folder.path}')} {lifted}".rstrip()
        print(
            f"CUT SHORT: {metrics['cut_short']}; these are not final results: continue with {again}"
        )
    print_comparison(job.config.data.exclude, folder.path)
    if job.config.figures:
        print(draw_after_run(folder, results.examples))
    step = job.model.global_step
    for logger in job.trainer.loggers:
        logger.log_metrics(final_values(metrics), step=step)
        logger.save()
    log_pictures(job.trainer.loggers, sorted(folder.path.glob("figures/*.png")), step)


def _model(config: DictConfig, datamodule: AnomalyDataModule, folder: RunFolder) -> MeDSWrapper:
    memory = build_settings(MemorySettings, config.memory)
    optimizer = build_settings(OptimizerSettings, config.backbone.optimizer)
    cache = build_settings(CacheSettings, config.cache)
    if cache.dir is None:
        cache = replace(cache, dir=str(folder.path / "cache"), shared=False)
    # The wrapper checks this again, but only once an encoder is there, perhaps downloaded.
    plan_stages(
        config.method, distill_steps=config.steps.distill, finetune_steps=config.steps.finetune
    )
    config.encoder.image_size = list(datamodule.preprocess.input_size)
    rival = RIVALS.get(config.method)
    return MeDSWrapper(
        build(config.encoder) if rival else build_detector(config),
        method=config.method,
        distill_steps=config.steps.distill,
        finetune_steps=config.steps.finetune,
        memory=memory,
        distill_loss=config.distillation.loss,
        selection=build_settings(SelectionSettings, config.selection),
        optimizer=optimizer,
        example=random_images(*datamodule.preprocess.input_size, torch.device("cpu")),
        seed=config.seed,
        rival=build_settings(rival, config[config.method]) if rival else None,
        cache=cache,
        scoring_batch=config.scoring_batch,
        compile=config.compile,
    )


def _embeddings(model: MeDSWrapper) -> Embeddings | None:
    """Return what the memory made of every training image."""
    memory, stream = model.memory, model.stream
    if memory is None or memory.embeddings is None or stream is None:
        return None
    if (layout := stream.images.reader.layout) is None:
        return memory.embeddings
    return of_whole_images(memory.embeddings, memory.image_scores(), layout)


def _memory(device: torch.device) -> dict[str, float | None]:
    """Return the most memory held so far, by the first rank's process and on its GPU."""
    held = {"host": peak_memory(), "device": None}
    if device.type == "cuda":
        held["device"] = torch.cuda.max_memory_allocated(device) / 1e9
    return {name: None if value is None else round(value, 3) for name, value in held.items()}


def _silence_lightning() -> None:
    """Keep small talk out of the output; Lightning's warnings about us are beside the point."""
    for name in ("lightning.pytorch", "lightning.fabric", "alembic", "mlflow", "faiss"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*in eval mode at the start of training.*",
        ".*LeafSpec.*",
        ".*many workers.*",
        "training ended after.*",  # the report says it
    ):
        warnings.filterwarnings("ignore", message=message)


def _protocol(job: _Job) -> dict[str, Any]:
    config, model = job.config, job.model
    # Not all detectors have a use for the encoder of encoder=.
    encodes = any(isinstance(part, FrozenEncoder) for part in model.detector.modules())
    return {
        "method": config.method,
        "backbone": None if model.rival else config.backbone.name,
        "encoder": config.encoder.model if encodes else None,
        "seed": config.seed,
        "steps": {stage.name: stage.steps for stage in model.plan.stages},
        "total_steps": model.total_steps,
        "steps_done": model.global_step,
        "batch_size": config.data.batch_size,
        "image_size": plain(config.data.image_size),
        "crop": plain(config.data.crop),
        "tiles": plain(config.data.tiles),
        "overlap": plain(config.data.overlap),
        "tile_unit": config.data.tile_unit,
        "range": plain(config.data.range),
        "input_size": plain(config.encoder.image_size),
        "normalization": asdict(model.normalization),
        "memory": plain(config.memory),
        "selection": plain(config.selection),
        "rival": model.rival.settings if model.rival else None,
        # The detector's own image score knows no share.
        "evaluation": asdict(job.protocol)
        | ({"image_top": None} if detector_scores_images(model) else {}),
    }
