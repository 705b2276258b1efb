from __future__ import annotations

import pytest
import torch

from meds_plugin.review.heatmaps import quantize_maps


def test_one_scale_holds_for_all_images() -> None:
    maps = torch.rand(6, 20, 20, generator=torch.Generator().manual_seed(0))
    maps[3] += 1.0
    heat = quantize_maps(maps)
    assert heat.values.dtype == "uint8"
    assert heat.low == pytest.approx(float(maps.median()), abs=0.01)
    back = heat.low + (heat.high - heat.low) * heat.values / 255.0
    inside = (maps.numpy() >= heat.low) & (maps.numpy() <= heat.high)
    assert abs(back - maps.numpy())[inside].max() < (heat.high - heat.low) / 255
    assert heat.values[maps.numpy() < heat.low].max() == 0
    assert (heat.values[3] > heat.values[0]).mean() > 0.9


def test_constant_maps_are_all_zero() -> None:
    assert quantize_maps(torch.full((2, 3, 3), 0.7)).values.max() == 0
