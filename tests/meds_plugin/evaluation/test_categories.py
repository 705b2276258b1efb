from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin import metrics
from meds_plugin.evaluation.categories import (
    IMAGE_METRICS,
    METRICS,
    PIXEL_METRICS,
    category_metrics,
    mean_metrics,
    metric_names,
)
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.metrics.aupimo import aupimo

if TYPE_CHECKING:
    from torch import Tensor


def metrics_of(
    maps: Tensor, masks: Tensor | None, labels: Tensor
) -> tuple[dict[str, float | None], dict[str, str]]:
    return category_metrics(maps, maps.amax((1, 2)), masks, labels, protocol=EvaluationProtocol())


@pytest.fixture
def category() -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(6, 16, 16, dtype=torch.bool)
    masks[3:, 2:6, 3:9] = True
    labels = torch.tensor([False] * 3 + [True] * 3)
    return torch.rand(6, 16, 16) * 30 + 4 * masks, masks, labels


def test_category_metrics_are_the_public_functions(
    category: tuple[Tensor, Tensor, Tensor],
) -> None:
    maps, masks, labels = category
    scores = metrics.image_score(maps, top=0.1)
    values, skipped = category_metrics(
        maps, scores, masks, labels, protocol=EvaluationProtocol(fpr_limit=0.2)
    )
    assert skipped == {}
    assert values == {
        "I-AUROC": metrics.auroc(scores, labels),
        "I-AP": metrics.average_precision(scores, labels),
        "I-F1max": metrics.f1_max(scores, labels),
        "P-AUROC": metrics.auroc(maps, masks),
        "P-AP": metrics.average_precision(maps, masks),
        "P-F1max": metrics.f1_max(maps, masks),
        "P-AUPRO": metrics.aupro(maps, masks, fpr_limit=0.2),
    }


def test_undefined_metrics_are_none_with_a_reason(
    category: tuple[Tensor, Tensor, Tensor],
) -> None:
    maps, masks, labels = category
    values, skipped = metrics_of(maps, None, labels)
    assert tuple(values) == METRICS
    assert {name for name, value in values.items() if value is None} == set(PIXEL_METRICS)
    assert skipped == dict.fromkeys(PIXEL_METRICS, "there are no masks")
    values, skipped = category_metrics(
        maps[3:], maps[3:].amax((1, 2)), masks[3:], labels[3:], protocol=EvaluationProtocol()
    )
    assert skipped == dict.fromkeys(IMAGE_METRICS, "there are no normal images")
    assert values["P-AUROC"] is not None
    values, skipped = category_metrics(
        maps[:3], maps[:3].amax((1, 2)), masks[:3], labels[:3], protocol=EvaluationProtocol()
    )
    assert set(skipped) == set(METRICS)
    assert skipped["I-AP"] == "there are no anomalous images"
    assert skipped["P-AUPRO"] == "there are no anomalous pixels"


def test_category_metrics_refuse_wrong_input(category: tuple[Tensor, Tensor, Tensor]) -> None:
    maps, masks, labels = category
    with pytest.raises(ValueError, match=r"scores have shape .* but labels"):
        metrics_of(maps, masks[:, :8], labels)
    with pytest.raises(ValueError, match=r"scores have shape .* but labels"):
        metrics_of(maps, None, labels[:-1])
    maps[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 6 images .* not finite"):
        metrics_of(maps, masks, labels)


def test_mean_metrics() -> None:
    full = dict.fromkeys(METRICS, 0.5)
    image_only = {**dict.fromkeys(IMAGE_METRICS, 1.0), **dict.fromkeys(PIXEL_METRICS)}
    mean = mean_metrics([full, image_only])
    assert mean == {**dict.fromkeys(IMAGE_METRICS, 0.75), **dict.fromkeys(PIXEL_METRICS, 0.5)}
    assert mean_metrics([image_only])["P-AP"] is None
    assert mean_metrics([]) == dict.fromkeys(METRICS)


def test_aupimo_is_an_eighth_metric_on_request(category: tuple[Tensor, Tensor, Tensor]) -> None:
    maps, masks, labels = category
    protocol = EvaluationProtocol(aupimo=True)
    values, skipped = category_metrics(maps, maps.amax((1, 2)), masks, labels, protocol=protocol)
    assert tuple(values) == metric_names(protocol) == (*METRICS, "P-AUPIMO")
    assert values["P-AUPIMO"] == float(aupimo(maps, masks).mean())
    assert skipped == {}
    assert mean_metrics([values], tuple(values)) == values
    values, skipped = category_metrics(
        maps[3:], maps[3:].amax((1, 2)), masks[3:], labels[3:], protocol=protocol
    )
    assert values["P-AUPIMO"] is None
    assert skipped["P-AUPIMO"] == "there are no normal images"
    _, skipped = category_metrics(maps, maps.amax((1, 2)), None, labels, protocol=protocol)
    assert skipped["P-AUPIMO"] == "there are no masks"
