"""How good scores are: metrics of images and pixels, and how contaminated a set is."""

from meds_plugin.metrics.curves import (
    ScoreCurve,
    UndefinedMetricError,
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_score,
    region_shares,
    score_curve,
)

__all__ = [
    "ScoreCurve",
    "UndefinedMetricError",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "image_score",
    "region_shares",
    "score_curve",
]
