"""Metrics of images and pixels, and the contamination that scores suggest."""

from meds_plugin.metrics.aupimo import aupimo
from meds_plugin.metrics.curves import (
    UndefinedMetricError,
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_score,
)

__all__ = [
    "UndefinedMetricError",
    "aupimo",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "image_score",
]
