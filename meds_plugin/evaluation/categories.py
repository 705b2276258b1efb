"""The metrics of a category, and their mean over categories."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meds_plugin.metrics.aupimo import aupimo
from meds_plugin.metrics.curves import (
    ScoreCurve,
    UndefinedMetricError,
    region_shares,
    score_curve,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = [
    "IMAGE_METRICS",
    "METRICS",
    "PIXEL_METRICS",
    "category_metrics",
    "mean_metrics",
    "metric_names",
]

IMAGE_METRICS = ("I-AUROC", "I-AP", "I-F1max")
PIXEL_METRICS = ("P-AUROC", "P-AP", "P-F1max", "P-AUPRO")
METRICS = IMAGE_METRICS + PIXEL_METRICS
_AUPIMO = "P-AUPIMO"


def metric_names(protocol: EvaluationProtocol) -> tuple[str, ...]:
    """Return the names of the metrics that a protocol asks for."""
    return (*METRICS, _AUPIMO) if protocol.aupimo else METRICS


def category_metrics(
    maps: Tensor,
    scores: Tensor,
    masks: Tensor | None,
    labels: Tensor,
    *,
    protocol: EvaluationProtocol,
    no_masks: str = "there are no masks",
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute the metrics of one category.

    Args:
        maps: ``[N, R, R]`` evaluated maps (see `evaluation_maps`), higher = more anomalous.
        scores: ``[N]`` image scores, higher = more anomalous.
        masks: ``[N, R, R]`` bool from `evaluation_masks`, or None unless all masks are known.
        labels: ``[N]`` 0 or 1, 1 = anomalous.
        protocol: Says which, and how.
        no_masks: The reason given where ``masks`` is None.

    Returns:
        All of `metric_names` in [0, 1], None where undefined, and the reason for each None.

    Raises:
        ValueError: If shapes differ or a value is not finite.
    """
    names = metric_names(protocol)
    values: dict[str, float | None] = dict.fromkeys(names)
    skipped: dict[str, str] = {}
    try:
        curve = score_curve(scores, labels, unit="images")
        values.update(zip(IMAGE_METRICS, _common(curve), strict=True))
    except UndefinedMetricError as reason:
        skipped.update(dict.fromkeys(IMAGE_METRICS, str(reason)))
    if masks is None:
        return values, {**skipped, **dict.fromkeys(names[len(IMAGE_METRICS) :], no_masks)}
    try:
        curve = score_curve(maps, masks, unit="pixels")
        pixel = (*_common(curve), curve.aupro(region_shares(masks), protocol.fpr_limit))
        values.update(zip(PIXEL_METRICS, pixel, strict=True))
    except UndefinedMetricError as reason:
        skipped.update(dict.fromkeys(PIXEL_METRICS, str(reason)))
    if protocol.aupimo:
        try:
            values[_AUPIMO] = float(aupimo(maps, masks).mean())
        except UndefinedMetricError as reason:
            skipped[_AUPIMO] = str(reason)
    return values, skipped


def mean_metrics(
    categories: Sequence[Mapping[str, float | None]], names: Sequence[str] = METRICS
) -> dict[str, float | None]:
    """Average each metric over the categories where it is defined; None if there are none."""
    means: dict[str, float | None] = {}
    for name in names:
        known = [value for each in categories if (value := each.get(name)) is not None]
        means[name] = math.fsum(known) / len(known) if known else None
    return means


def _common(curve: ScoreCurve) -> tuple[float, float, float]:
    """Return AUROC, AP and F1-max."""
    return curve.auroc(), curve.average_precision(), curve.f1_max()
