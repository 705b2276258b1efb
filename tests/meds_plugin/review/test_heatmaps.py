from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.review.heatmaps import SIDE, on_one_scale, training_maps
from tests.toys import FullDetector, loader, quiet_trainer, wrap

if TYPE_CHECKING:
    from meds_plugin.training.stages import Method


@pytest.mark.parametrize("method", ["meds", "memory"])
def test_every_training_image_has_the_map_that_its_score_comes_from(method: Method) -> None:
    model = wrap(FullDetector(), method=method, distill_steps=4, finetune_steps=4)
    model.selection_top = 0.0
    quiet_trainer(model.total_steps).fit(model, loader())
    maps = training_maps(model)
    assert maps.shape == (20, 4, 4)
    if method == "memory" and model.memory is not None:
        assert torch.equal(maps, model.memory.maps if model.memory.maps is not None else maps + 1)
    else:
        assert torch.allclose(maps.flatten(1).amax(1), model.training_scores().score)


def test_of_large_maps_the_highest_values_stay() -> None:
    model = wrap(FullDetector(), method="memory")
    quiet_trainer(0).fit(model, loader(4))
    assert model.memory is not None
    model.memory.maps = torch.zeros(4, 5 * SIDE, 2 * SIDE)
    model.memory.maps[2, 7, 9] = 3.0
    maps = training_maps(model)
    assert maps.shape == (4, SIDE, SIDE)
    assert maps[2, 1, 4] == 3.0
    assert maps.sum() == 3.0


def test_one_scale_holds_for_all_images() -> None:
    maps = torch.rand(6, 20, 20, generator=torch.Generator().manual_seed(0))
    maps[3] += 1.0
    heat = on_one_scale(maps)
    assert heat.values.dtype == "uint8"
    assert heat.low == pytest.approx(float(maps.median()), abs=0.01)
    back = heat.low + (heat.high - heat.low) * heat.values / 255.0
    inside = (maps.numpy() >= heat.low) & (maps.numpy() <= heat.high)
    assert abs(back - maps.numpy())[inside].max() < (heat.high - heat.low) / 255
    assert heat.values[maps.numpy() < heat.low].max() == 0
    assert (heat.values[3] > heat.values[0]).mean() > 0.9


def test_maps_without_differences_are_faint() -> None:
    assert on_one_scale(torch.full((2, 3, 3), 0.7)).values.max() == 0


def test_maps_exist_only_after_a_fit() -> None:
    with pytest.raises(RuntimeError, match="after a fit"):
        training_maps(wrap(FullDetector()))
