"""Makes a predictor from a run's checkpoint and the configuration next to it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from meds_plugin.config.build import (
    build_detector,
    build_preprocess,
    build_tiling,
    check_targets,
    plain,
)
from meds_plugin.detectors.frozen_part import FrozenPart, check_saved, without
from meds_plugin.detectors.inference import choose_device
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.evaluation.alarms import AlarmThresholds
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.evaluation.scoring import Scorer
from meds_plugin.prediction.predictor import Predictor
from meds_plugin.runs.read import read_config
from meds_plugin.training.stages import UNTRAINED, plan_stages
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.text import expand_home

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

    from meds_plugin.data.transforms import Preprocess
    from meds_plugin.tiles import Tiling

__all__ = ["load"]


def load(
    ckpt: str | PathLike[str],
    *,
    device: str | torch.device = "auto",
    encoder_weights: str | PathLike[str] | None = None,
    trust: bool = False,
) -> Predictor:
    """Load a trained detector to score new images.

    Nothing is unpickled. ``config.yaml`` next to the checkpoint says how to build the detector, and
    ``threshold.json`` has the alarm thresholds.

    Args:
        ckpt: A run's ``model.ckpt``, or the run's folder.
        device: ``auto`` uses an accelerator if there is one.
        encoder_weights: A copy of the encoder's weights, if the run's path no longer exists.
        trust: Allow ``config.yaml`` to call any code. Otherwise only detectors and encoders of this
            package and of installed plugins are built.

    Raises:
        UserError: If a file is missing, damaged, of another version or another model, or the run
            trained no detector.
    """
    path = Path(ckpt)
    path = path / "model.ckpt" if path.is_dir() else path
    saved = _read_checkpoint(path)
    config = read_config(path.parent)
    if not trust:
        check_targets(plain(config.backbone.detector), path.with_name("config.yaml"))
    method = config.get("method")
    if method in UNTRAINED:
        msg = (
            f"{path} is of method={method}, which trains no detector: its scores need the training "
            "images; give the checkpoint of another method"
        )
        raise UserError(msg)
    if encoder_weights is not None:
        encoder = config.backbone.detector.get("encoder")
        if not isinstance(encoder, DictConfig):
            what = f"backbone={config.backbone.name} takes no encoder"
            msg = f"encoder.weights={encoder_weights}: {what}"
            raise UserError(msg)
        encoder.weights = str(Path(expand_home(encoder_weights)).absolute())
    preprocess, tiling, protocol = _preparation(config, path.with_name("config.yaml"))
    detector = build_detector(config)
    _load_weights(detector, saved, path)
    file = path.with_name("threshold.json")
    thresholds = AlarmThresholds.read(file) if file.is_file() else None
    names = saved["meds"].get("categories") or sorted(thresholds.scores if thresholds else ())
    scorer = Scorer(
        detector,
        preprocess.input_size,
        protocol,
        precision=str(config.trainer.precision),
        tiled=tiling is not None,
    )
    preprocess.normalization = scorer.view.normalization
    return Predictor(
        scorer,
        preprocess,
        tiling=tiling,
        categories=[str(name) for name in names],
        thresholds=thresholds,
        device=choose_device(device),
        source=path,
        backbone=str(config.backbone.name),
        cut_short=_cut_short(config, saved),
    )


def _cut_short(config: DictConfig, saved: dict[str, Any]) -> str | None:
    """Say that the detector was not trained to the end."""
    steps = config.steps
    plan = plan_stages(config.method, distill_steps=steps.distill, finetune_steps=steps.finetune)
    return plan.cut_short(saved["global_step"])


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        msg = f"ckpt={path}: there is no such file; give a run's model.ckpt"
        raise UserError(msg)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, KeyError) as error:
        msg = f"ckpt={path} cannot be read as a checkpoint ({brief(error)})"
        raise UserError(msg) from error
    if not isinstance(saved, dict) or "state_dict" not in saved or "meds" not in saved:
        msg = f"ckpt={path} is not a checkpoint of a run; give a run's model.ckpt"
        raise UserError(msg)
    return saved


def _preparation(
    config: DictConfig, source: Path
) -> tuple[Preprocess, Tiling | None, EvaluationProtocol]:
    """Return how images become tensors, and maps scores."""
    try:
        protocol = EvaluationProtocol(**plain(config.evaluation))
        return build_preprocess(config.data), build_tiling(config.data), protocol
    except UserError:
        raise
    except (AttributeError, TypeError) as error:  # a key is missing, or one too many
        msg = f"{source} is not a configuration of a run ({type(error).__name__}: {error})"
        raise UserError(msg) from error


def _load_weights(detector: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Put the trained weights in, if they are of this detector."""
    own = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    view = DetectorView(detector, default_features)
    frozen = FrozenPart(detector, view.trainable_parameters())
    try:
        check_saved(
            saved["state_dict"],
            expected=without(own, [f"detector.{name}" for name in frozen.prefixes]),
            saved_fingerprint=saved["meds"].get("frozen"),
            fingerprint=frozen.fingerprint(),
        )
        state = {k.removeprefix("detector."): v for k, v in saved["state_dict"].items()}
        detector.load_state_dict(state, strict=False)
    except (RuntimeError, UserError) as error:
        msg = f"ckpt={path}: {' '.join(str(error).split())}"
        raise UserError(msg) from error
