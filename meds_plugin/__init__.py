"""MeDS for PyTorch Lightning: anomaly detectors robust to contaminated training data."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meds_plugin.callbacks import (
        DistillationCallback,
        MemoryEnsembleCallback,
        ProgressiveSelectionCallback,
    )
    from meds_plugin.data import AnomalyDataModule
    from meds_plugin.detectors.protocol import Detector
    from meds_plugin.encoders.normalization import Normalization
    from meds_plugin.encoding.cache.settings import CacheSettings
    from meds_plugin.evaluation.evaluate import evaluate
    from meds_plugin.memory.settings import MemorySettings
    from meds_plugin.prediction.load import load
    from meds_plugin.training.optimizer import OptimizerSettings
    from meds_plugin.utils.errors import DetectorError, UserError
    from meds_plugin.wrapper import MeDSWrapper

__all__ = [
    "AnomalyDataModule",
    "CacheSettings",
    "Detector",
    "DetectorError",
    "DistillationCallback",
    "MeDSWrapper",
    "MemoryEnsembleCallback",
    "MemorySettings",
    "Normalization",
    "OptimizerSettings",
    "ProgressiveSelectionCallback",
    "UserError",
    "evaluate",
    "load",
]

_HOMES = {
    "AnomalyDataModule": "data",
    "CacheSettings": "encoding.cache.settings",
    "Detector": "detectors.protocol",
    "DetectorError": "utils.errors",
    "DistillationCallback": "callbacks",
    "MeDSWrapper": "wrapper",
    "MemoryEnsembleCallback": "callbacks",
    "MemorySettings": "memory.settings",
    "Normalization": "encoders.normalization",
    "OptimizerSettings": "training.optimizer",
    "ProgressiveSelectionCallback": "callbacks",
    "UserError": "utils.errors",
    "evaluate": "evaluation.evaluate",
    "load": "prediction.load",
}

try:
    __version__ = version("meds-plugin")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; the command line answers faster for it."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"meds_plugin.{_HOMES[name]}"), name)
