"""The metrics of a category, and their mean over categories."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.evaluation.protocol import unpacked_masks
from meds_plugin.metrics.aupimo import aupimo_of_parts
from meds_plugin.metrics.curves import (
    ScoreCurve,
    UndefinedMetricError,
    curve_of_parts,
    score_curve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = [
    "IMAGE_METRICS",
    "METRICS",
    "PART",
    "PIXEL_METRICS",
    "category_metrics",
    "mean_metrics",
    "metric_names",
]

IMAGE_METRICS = ("I-AUROC", "I-AP", "I-F1max")
PIXEL_METRICS = ("P-AUROC", "P-AP", "P-F1max", "P-AUPRO")
METRICS = IMAGE_METRICS + PIXEL_METRICS
_AUPIMO = "P-AUPIMO"
PART = 1 << 24  # pixels counted at a time, as many as 256 maps of 256 x 256 have


def metric_names(protocol: EvaluationProtocol) -> tuple[str, ...]:
    """Return the names of the metrics that a protocol asks for."""
    return (*METRICS, _AUPIMO) if protocol.aupimo else METRICS


def category_metrics(
    maps: Tensor | Callable[[], Iterable[Tensor]],
    scores: Tensor,
    masks: Tensor | None,
    labels: Tensor,
    *,
    protocol: EvaluationProtocol,
    no_masks: str = "there are no masks",
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute the metrics of one category.

    Args:
        maps: ``[N, R, R]`` evaluated maps (see `evaluation_maps`), higher = more anomalous; or
            what returns them in parts, the same each time, if they are too many for the memory.
        scores: ``[N]`` image scores, higher = more anomalous.
        masks: ``[N, R, R]`` bool from `evaluation_masks`, perhaps packed by `packed_masks`; None
            unless all masks are known.
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
    truth = masks

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for part in _split(maps) if isinstance(maps, Tensor) else maps():
            own = truth[start : start + len(part)]
            yield part, own if own.dtype == torch.bool else unpacked_masks(own, part.shape[-1])
            start += len(part)

    try:
        curve = curve_of_parts(parts, unit="pixels", regions=True)
        values.update(
            zip(PIXEL_METRICS, (*_common(curve), curve.aupro(protocol.fpr_limit)), strict=True)
        )
    except UndefinedMetricError as reason:
        skipped.update(dict.fromkeys(PIXEL_METRICS, str(reason)))
    if protocol.aupimo:
        try:
            values[_AUPIMO] = float(aupimo_of_parts(parts, 8 * truth.numel()).mean())
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


def _split(maps: Tensor) -> Sequence[Tensor]:
    return maps.split(max(1, PART // maps[0].numel())) if len(maps) else ()
