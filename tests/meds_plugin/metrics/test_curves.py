from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)

from meds_plugin.metrics.curves import (
    UndefinedMetricError,
    aupro,
    auroc,
    average_precision,
    curve_of_parts,
    f1_max,
    image_score,
    region_shares,
    score_curve,
)
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.conftest import Arrays

    Array = NDArray[Any]
    Metric = Callable[[Any, Any], float]

METRICS = [auroc, average_precision, f1_max]


# Brute force, from the definitions.


def _pairs(scores: list[float], labels: list[int]) -> float:
    found = [s for s, y in zip(scores, labels, strict=True) if y]
    normal = [s for s, y in zip(scores, labels, strict=True) if not y]
    wins = sum((p > n) + 0.5 * (p == n) for p in found for n in normal)
    return wins / (len(found) * len(normal))


def _precision_recall(scores: list[float], labels: list[int]) -> list[tuple[float, float]]:
    points = []
    for threshold in sorted(set(scores), reverse=True):
        alarms = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        points.append((sum(alarms) / len(alarms), sum(alarms) / sum(labels)))
    return points


def _stepwise(scores: list[float], labels: list[int]) -> float:
    area = before = 0.0
    for precision, recall in _precision_recall(scores, labels):
        area += (recall - before) * precision
        before = recall
    return area


def _best_f1(scores: list[float], labels: list[int]) -> float:
    points = _precision_recall(scores, labels)
    return max(2 * p * r / (p + r) if p + r else 0.0 for p, r in points)


def _regions(masks: Array) -> list[list[tuple[int, int, int]]]:
    """Flood fill, 8 neighbours, image by image."""
    left = {(int(i), int(y), int(x)) for i, y, x in np.argwhere(masks)}
    regions = []
    while left:
        todo = [left.pop()]
        region = []
        while todo:
            i, y, x = todo.pop()
            region.append((i, y, x))
            near = {(i, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        regions.append(region)
    return regions


def _slow_aupro(maps: Array, masks: Array, limit: float) -> float:
    regions = _regions(masks)
    x, y = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        hit = maps >= threshold
        x.append(float(hit[masks == 0].mean()))
        y.append(float(np.mean([np.mean([hit[p] for p in region]) for region in regions])))
    area = 0.0
    for i in range(1, len(x)):
        if x[i - 1] >= limit:
            break
        end, top = x[i], y[i]
        if end > limit:
            top = y[i - 1] + (top - y[i - 1]) * (limit - x[i - 1]) / (end - x[i - 1])
            end = limit
        area += (end - x[i - 1]) * (top + y[i - 1]) / 2
    return area / limit


def _reference_aupro(maps: Array, masks: Array) -> tuple[float, Array, Array]:
    """AUPRO as the reference computes it with 200 thresholds: docs/method.md, section 8."""
    regions = [tuple(np.array(region).T) for region in _regions(masks)]
    low, high = maps.min(), maps.max()
    x, y = [], []
    for threshold in np.arange(low, high, (high - low) / 200, dtype=np.float32):
        hit = maps > threshold
        x.append(hit[masks == 0].mean())
        y.append(np.mean([hit[region].mean() for region in regions]))
    fpr, pro = np.array(x), np.array(y)
    keep = fpr < 0.3
    fpr, pro = fpr[keep] / fpr[keep].max(), pro[keep]
    area = float(np.sum((fpr[:-1] - fpr[1:]) * (pro[:-1] + pro[1:])) / 2)
    return area, fpr, pro


# Against the reference's outputs.


@pytest.mark.parametrize("case", ["smooth", "ties"])
def test_golden_metrics(golden: Callable[[str], Arrays], case: str) -> None:
    data = golden("metrics")
    maps, masks, labels = data[f"{case}.amaps"], data["masks"], data["labels"]
    scores = image_score(torch.from_numpy(maps))
    np.testing.assert_allclose(scores, data[f"{case}.image_score_top1pct"], atol=1e-6)
    ours = [metric(scores, labels) for metric in METRICS]
    ours += [metric(maps, masks) for metric in METRICS]
    np.testing.assert_allclose(ours, data[f"{case}.official_cpu"][:6], atol=1e-6)


@pytest.mark.parametrize("case", ["smooth", "ties"])
def test_golden_aupro(golden: Callable[[str], Arrays], case: str) -> None:
    data = golden("metrics")
    maps, masks = data[f"{case}.amaps"], data["masks"]
    ours = [aupro(maps, masks, fpr_limit=limit) for limit in (0.05, 0.3, 1.0)]
    np.testing.assert_allclose(ours, data[f"{case}.aupro_exact_0.05_0.3_1.0"], atol=1e-9)


@pytest.mark.parametrize("case", ["smooth", "ties"])
def test_golden_is_read_right(golden: Callable[[str], Arrays], case: str) -> None:
    data = golden("metrics")
    area, fpr, pro = _reference_aupro(data[f"{case}.amaps"], data["masks"])
    assert len(_regions(data["masks"])) == data[f"{case}.num_regions"]
    assert area == pytest.approx(data[f"{case}.official_cpu"][6], abs=1e-6)
    np.testing.assert_allclose(fpr, data[f"{case}.aupro_curve_fpr_normalised"], atol=1e-9)
    np.testing.assert_allclose(pro, data[f"{case}.aupro_curve_pro"], atol=1e-9)


# Against brute force and torchmetrics.


@pytest.mark.parametrize("draw", range(20))
@pytest.mark.parametrize("levels", [1, 3, 40])
def test_metrics_equal_brute_force(draw: int, levels: int) -> None:
    rng = numpy_rng(draw, "metrics", levels)
    labels = np.append(rng.integers(0, 2, 28), [0, 1]).tolist()
    scores = ((rng.integers(0, levels, 30) - 7) * 12.5).tolist()
    assert auroc(scores, labels) == pytest.approx(_pairs(scores, labels), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(_stepwise(scores, labels), abs=1e-12)
    assert f1_max(scores, labels) == pytest.approx(_best_f1(scores, labels), abs=1e-12)


@pytest.mark.parametrize("draw", range(8))
@pytest.mark.parametrize("levels", [1, 4, 1000])
def test_aupro_equals_brute_force(draw: int, levels: int) -> None:
    rng = numpy_rng(draw, "aupro", levels)
    masks = rng.random((3, 9, 7)) < (0.08, 0.25, 0.7)[draw % 3]
    masks[0, 0, 0], masks[0, 0, 1] = False, True
    maps = rng.integers(0, levels, masks.shape) + 0.4 * levels * masks * rng.integers(0, 2)
    for limit in (0.02, 0.3, 1.0):
        assert aupro(maps, masks, limit) == pytest.approx(_slow_aupro(maps, masks, limit), abs=1e-9)


def test_metrics_equal_torchmetrics_on_many_ranked_scores() -> None:
    rng = numpy_rng(0, "torchmetrics")
    labels = rng.random(200_000) < 0.05
    scores = np.round((rng.normal(size=labels.size) + 1.5 * labels) * 300).astype(np.float32)
    _, ranks = np.unique(scores, return_inverse=True)
    unit, truth = torch.from_numpy(ranks / ranks.max()), torch.from_numpy(labels).long()
    precision, recall, _ = binary_precision_recall_curve(unit, truth)
    best = (2 * precision * recall / (precision + recall)).nan_to_num().max()
    assert auroc(scores, labels) == pytest.approx(float(binary_auroc(unit, truth)), abs=1e-6)
    ap = float(binary_average_precision(unit, truth))
    assert average_precision(scores, labels) == pytest.approx(ap, abs=1e-6)
    assert f1_max(scores, labels) == pytest.approx(float(best), abs=1e-6)


# Properties.


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_order_counts(metric: Metric) -> None:
    rng = numpy_rng(1, "order")
    labels = rng.integers(0, 2, 400)
    scores = rng.integers(-30, 30, 400) + 5 * labels
    expected = metric(scores, labels)
    assert 0.5 < expected < 1.0
    for changed in (
        scores * 1e-30,
        scores * 1e30,
        np.exp(scores / 10.0),
        np.arctan(scores.astype(float)),
        (scores - 10_000).astype(np.float32),
        scores.astype(np.float16),
        np.where((scores == 0) & (np.arange(400) % 2 == 0), -0.0, scores),  # -0.0 ties with 0.0
    ):
        assert metric(changed, labels) == expected
    shuffled = rng.permutation(400)
    assert metric(scores[shuffled], labels[shuffled]) == expected


def test_aupro_only_the_order_counts() -> None:
    rng = numpy_rng(1, "order", "aupro")
    masks = rng.random((4, 12, 12)) < 0.2
    maps = rng.integers(-9, 9, masks.shape) + 4 * masks
    expected = aupro(maps, masks)
    assert 0.3 < expected < 1.0
    assert aupro(maps * 1e6 - 1e7, masks) == expected
    assert aupro(np.exp(maps / 3.0), masks) == expected


def test_close_double_scores_are_kept_apart() -> None:
    scores = 1e6 + np.arange(1000) * 1e-9  # far closer than float32 can tell
    labels = np.arange(1000) >= 500
    assert auroc(scores, labels) == average_precision(scores, labels) == 1.0


@pytest.mark.parametrize(
    ("metric", "blind"), [(auroc, 0.5), (average_precision, 0.25), (f1_max, 0.4)]
)
def test_perfect_and_uninformative_scores(metric: Metric, blind: float) -> None:
    labels = [0, 0, 0, 1]
    assert metric([-5, -4, 3, 99], labels) == 1.0
    assert metric([7, 7, 7, 7], labels) == blind
    assert auroc([3, 2, 1, 0], labels) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_accepts_any_arrays(metric: Metric) -> None:
    scores, labels = [0.25, 3.0, 2.0, -1.0], [0, 1, 0, 1]
    expected = metric(scores, labels)
    assert isinstance(expected, float)
    tensor = torch.tensor(scores, requires_grad=True)
    assert metric(tensor, torch.tensor(labels, dtype=torch.bool)) == expected
    assert metric(tensor.bfloat16().view(2, 2), torch.tensor(labels).view(2, 2)) == expected
    assert metric(np.array(scores), np.array(labels, dtype=float)) == expected
    assert metric(tuple(scores), torch.tensor(labels, dtype=torch.uint8)) == expected


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
def test_aupro_range(limit: float) -> None:
    rng = numpy_rng(2, "range")
    masks = rng.random((3, 16, 16)) < 0.1
    assert aupro(masks * 40.0 - 3.0, masks, limit) == pytest.approx(1.0, abs=1e-12)
    assert aupro(masks * 40.0 - 3.0, masks, limit) <= 1.0
    assert aupro(-1.0 * masks, masks, limit) == pytest.approx(max(0.0, 1 - 1 / limit), abs=1e-12)
    assert aupro(np.zeros(masks.shape), masks, limit) == pytest.approx(limit / 2, abs=1e-12)
    assert 0.0 <= aupro(rng.normal(size=masks.shape), masks, limit) <= 1.0


def test_regions_are_8_connected_and_never_across_images() -> None:
    masks = np.zeros((3, 4, 4), dtype=np.uint8)
    masks[0, 0, 0] = masks[0, 1, 1] = 1  # one region, touching at a corner
    masks[1, 0, 0] = 1  # below the first in the stack, but another image
    masks[1, 3, :] = 1
    shares = region_shares(masks == 1)
    np.testing.assert_allclose(shares, [1 / 2, 1 / 2, 1, *[1 / 4] * 4])
    maps = np.zeros(masks.shape)
    maps[1, 3, :] = 1.0  # one of three regions found without a false alarm
    assert aupro(maps, masks, 1e-9) == pytest.approx(1 / 3, abs=1e-6)


def test_small_regions_count_as_much_as_large_ones() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 0, 0] = masks[0, 4:, :] = True
    missed_small, missed_large = np.zeros((2, 1, 8, 8))
    missed_small[0, 4:, :] = 1.0
    missed_large[0, 0, 0] = 1.0
    assert aupro(missed_small, masks, 1e-9) == pytest.approx(0.5, abs=1e-6)
    assert aupro(missed_large, masks, 1e-9) == pytest.approx(0.5, abs=1e-6)


# Wrong input.


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("labels", "reason"), [([0, 0], "anomalous"), ([1, 1], "normal")])
def test_one_class_is_undefined(metric: Metric, labels: list[int], reason: str) -> None:
    with pytest.raises(UndefinedMetricError, match=f"no {reason}"):
        metric([0.1, 0.2], labels)
    with pytest.raises(UndefinedMetricError, match="no anomalous"):
        metric([], [])


@pytest.mark.parametrize(("value", "reason"), [(0, "no anomalous pixels"), (1, "no normal pixels")])
def test_aupro_undefined(value: int, reason: str) -> None:
    with pytest.raises(UndefinedMetricError, match=reason):
        aupro(np.zeros((2, 4, 4)), np.full((2, 4, 4), value))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_scores_are_counted(bad: float) -> None:
    for metric in METRICS:
        with pytest.raises(ValueError, match=r"2 of 4 samples .* not finite"):
            metric([bad, 0.0, 1.0, bad], [0, 1, 0, 1])
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"1 of 4 pixels .* not finite"):
        aupro(maps, torch.eye(2)[None])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="only 0 and 1"):
        auroc([0.0, 1.0], [0, 255])
    with pytest.raises(ValueError, match="only 0 and 1"):
        auroc([0.0, 1.0], [0, math.nan])
    with pytest.raises(ValueError, match="shape"):
        auroc([0.0, 1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="real numbers"):
        auroc([1j, 0.0], [0, 1])
    with pytest.raises(ValueError, match="fpr_limit"):
        aupro(np.zeros((1, 2, 2)), np.eye(2)[None], 0.0)
    with pytest.raises(ValueError, match=r"\[N, H, W\]"):
        aupro(np.zeros((2, 2)), np.eye(2))


def test_one_sort_serves_all() -> None:
    rng = numpy_rng(3, "curve")
    masks = rng.random((2, 10, 10)) < 0.2
    maps = rng.normal(size=masks.shape)
    before = maps.copy()
    curve = score_curve(maps, masks, regions=True)
    assert curve.auroc() == auroc(maps, masks)
    assert curve.aupro(0.3) == aupro(maps, masks)
    np.testing.assert_array_equal(maps, before)  # the input is not sorted in place


@pytest.mark.parametrize("draw", range(6))
@pytest.mark.parametrize("levels", [1, 3, 50_000])
def test_the_curve_does_not_depend_on_the_parts(draw: int, levels: int) -> None:
    rng = numpy_rng(draw, "parts", levels)
    masks = rng.random((7, 9, 11)) < (0.004, 0.1, 0.9)[draw % 3]
    masks[3, 0, 0], masks[3, 0, 1] = True, False
    maps = rng.integers(-levels, levels, masks.shape).astype((np.float32, np.float64)[draw % 2])
    whole = score_curve(maps, masks, regions=True)
    for size in (1, 3, 6):
        parts = [(maps[i : i + size], masks[i : i + size]) for i in range(0, 7, size)]
        found = curve_of_parts(partial(iter, parts), regions=True)
        for field in ("hits", "alarms", "alarms_above"):
            np.testing.assert_array_equal(getattr(found, field), getattr(whole, field))
        np.testing.assert_allclose(found.overlap, whole.overlap, rtol=1e-13)
        assert (found.positives, found.negatives) == (whole.positives, whole.negatives)


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_fewer_thresholds_move_the_metrics_by_no_more_than_their_distance(limit: int) -> None:
    rng = numpy_rng(0, "thresholds", limit)
    masks = rng.random((40, 20, 20)) < 0.2
    maps = np.exp(rng.normal(size=masks.shape) * 2) + masks * rng.random(masks.shape)
    exact = score_curve(maps, masks, regions=True)
    found = curve_of_parts(
        lambda: zip(np.split(maps, 20), np.split(masks, 20), strict=True),
        regions=True,
        limit=limit,
    )
    assert limit / 2 <= len(found.hits) <= limit < len(exact.hits)
    assert (found.hits[-1], found.positives) == (exact.hits[-1], exact.positives)
    most = found.gained.max() / found.positives
    assert most < 12 / limit
    assert found.auroc() == pytest.approx(exact.auroc(), abs=most / 2)
    assert found.average_precision() == pytest.approx(exact.average_precision(), abs=most)
    assert exact.f1_max() - most <= found.f1_max() <= exact.f1_max()
    assert found.aupro() == pytest.approx(exact.aupro(), abs=most)


def test_many_tied_scores_are_one_threshold_whatever_the_limit() -> None:
    maps, masks = np.zeros((6, 30, 30)), np.ones((6, 30, 30), bool)
    masks[:, 0] = False
    maps[:, :, :15] = 1.0
    parts = [(maps[i : i + 1], masks[i : i + 1]) for i in range(6)]
    found = curve_of_parts(lambda: parts, limit=2)
    assert found.auroc() == auroc(maps, masks) == 0.5
    assert len(found.hits) == 2


def test_wrong_parts_are_refused_as_a_whole_is() -> None:
    good, bad = np.zeros(3), np.array([0, math.nan, 1])
    with pytest.raises(ValueError, match="1 of 6 pixels have a score that is not finite"):
        curve_of_parts(lambda: [(good, [0, 1, 0]), (bad, [0, 0, 1])], unit="pixels")
    with pytest.raises(UndefinedMetricError, match="no normal pixels"):
        curve_of_parts(lambda: [(good, [1, 1, 1])] * 2, unit="pixels")


# Image scores.


@pytest.mark.parametrize(
    ("top", "count"), [(0.0, 1), (0.01, 1), (0.1, 3), (0.5, 17), (1.0, 35), (1 / 35, 1)]
)
def test_image_score_averages_the_largest(top: float, count: int) -> None:
    maps = torch.randn(4, 5, 7) * 50
    expected = maps.flatten(1).sort(descending=True).values[:, :count].mean(dim=1)
    torch.testing.assert_close(image_score(maps, top=top), expected)


def test_image_score_count_of_the_reference() -> None:
    maps = torch.zeros(1, 256, 256)
    maps.view(-1)[:655] = 1.0
    assert image_score(maps).item() == 1.0
    maps.view(-1)[654] = 0.0
    assert image_score(maps).item() == pytest.approx(654 / 655)


def test_image_score_types() -> None:
    maps = torch.rand(2, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(image_score(maps, 0.0).sum(), maps)
    assert grad.sum() == 2.0
    assert image_score(maps.detach().bfloat16()).dtype == torch.float32
    assert image_score(maps.detach().double()).dtype == torch.float64
    assert image_score(torch.zeros(0, 8, 8)).shape == (0,)


@pytest.mark.parametrize(
    ("shape", "top"), [((8, 8), 0.1), ((1, 1, 8, 8), 0.1), ((2, 0, 8), 0.1), ((1, 8, 8), 1.5)]
)
def test_image_score_wrong_arguments(shape: tuple[int, ...], top: float) -> None:
    with pytest.raises(ValueError, match=r"maps must|top must"):
        image_score(torch.zeros(shape), top)
