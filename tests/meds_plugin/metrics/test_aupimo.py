"""AUPIMO is exact, and agrees with anomalib's, which samples thresholds."""

from __future__ import annotations

import math

import pytest
import torch

from meds_plugin.metrics.aupimo import aupimo, aupimo_of_parts
from meds_plugin.metrics.curves import UndefinedMetricError


def made() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(10, 64, 64, generator=generator, dtype=torch.float64)
    masks = torch.zeros(10, 64, 64, dtype=torch.bool)
    masks[4:, 10:20, 30:40] = True
    maps[4:, 10:16, 30:40] = 0.98 + 0.03 * torch.rand(6, 6, 10, generator=generator)
    return maps, masks


def test_it_agrees_with_anomalib() -> None:
    functional = pytest.importorskip("anomalib.metrics.pimo.functional")
    maps, masks = made()
    bounds = (1e-3, 1e-2)
    expected = functional.aupimo_scores(maps, masks, 1_000_000, fpr_bounds=bounds)[4][4:]
    found = aupimo(maps, masks, bounds=bounds)
    torch.testing.assert_close(found, expected.double(), atol=5e-3, rtol=0)
    assert found.min() > 0.05
    assert found.max() < 0.95


def test_it_is_the_integral_over_every_threshold() -> None:
    maps, masks = made()
    lower, upper = 1e-3, 1e-2
    normal = maps[:4].flatten().sort(descending=True).values
    points = torch.linspace(math.log(lower), math.log(upper), 20001, dtype=torch.float64).exp()
    # The lowest threshold at which no more than that share of normal pixels lies above it.
    thresholds = normal[(points * len(normal)).long()]
    rates = [(maps[4:][masks[4:]].view(6, -1) > t).double().mean(1) for t in thresholds]
    expected = torch.stack(rates).mean(0)
    torch.testing.assert_close(
        aupimo(maps, masks, bounds=(lower, upper)), expected, atol=1e-3, rtol=0
    )


def test_extremes() -> None:
    maps, masks = torch.zeros(4, 8, 8), torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[2:, :2] = True
    assert aupimo(maps, masks).tolist() == [0, 0]  # no pixel is told from any other
    maps[2, :2] = 1
    assert aupimo(maps, masks).tolist() == pytest.approx([1, 0])
    with pytest.raises(UndefinedMetricError, match="there are no normal images"):
        aupimo(maps[2:], masks[2:])
    with pytest.raises(UndefinedMetricError, match="there are no defective images"):
        aupimo(maps[:2], masks[:2])


@pytest.mark.parametrize("order", [range(10), range(9, -1, -1)])
def test_parts_are_the_same_as_the_whole(order: range) -> None:
    maps, masks = made()
    rows = list(order)
    parts = list(zip(maps[rows].split(3), masks[rows].split(3), strict=True))
    for bounds in ((1e-5, 1e-4), (1e-3, 1e-2)):
        expected = aupimo(maps[rows], masks[rows], bounds=bounds)
        found = aupimo_of_parts(lambda: parts, maps.numel(), bounds=bounds)
        assert torch.equal(found, expected)
