"""Anomaly detectors for `meds_plugin`; each loads on first use, so that importing this is free."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.anomalib import AnomalibDetector
    from backbones.dinomaly import Dinomaly
    from backbones.hvq import HVQ
    from backbones.inp_former import INPFormer

__all__ = ["HVQ", "AnomalibDetector", "Dinomaly", "INPFormer"]

_MODULES = {
    "AnomalibDetector": "backbones.anomalib",
    "Dinomaly": "backbones.dinomaly",
    "HVQ": "backbones.hvq",
    "INPFormer": "backbones.inp_former",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name]), name)
