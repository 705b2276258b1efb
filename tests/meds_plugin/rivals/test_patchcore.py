from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.rivals import PatchCore
from meds_plugin.rivals.base import TensorFeatures
from meds_plugin.rivals.coreset import greedy_coreset, mean_distances
from meds_plugin.rivals.local_features import combined, neighbourhoods
from meds_plugin.rivals.patchcore import Bank, build_bank, projected, score_by_bank
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Arrays


def features(values: Tensor) -> TensorFeatures:
    return TensorFeatures(values, (1, values.shape[1]), (8, 8))


def embedded(arrays: dict[str, Tensor], images: Tensor, width: int = 96) -> TensorFeatures:
    """Return the features of the golden pipeline's tiny network."""
    stem = F.conv2d(images, arrays["stem_weight"], stride=4, padding=1).relu()
    layer2 = F.conv2d(stem, arrays["layer2_0_weight"], padding=1).relu()
    layer3 = F.conv2d(layer2, arrays["layer3_0_weight"], stride=2, padding=1).relu()
    maps = [neighbourhoods(each, patch=3, width=width) for each in (layer2, layer3)]
    found = combined(maps, width)
    return TensorFeatures(found.flatten(2).mT, (10, 10), (40, 40))


@pytest.fixture
def pipeline(golden: Callable[[str], Arrays]) -> dict[str, Tensor]:
    return {k: torch.as_tensor(v) for k, v in golden("baselines/pipeline").items()}


def close(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5 * scale)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_banks_maps_and_scores_are_the_authors(
    pipeline: dict[str, Tensor], neighbours: int
) -> None:
    train, test = (embedded(pipeline, pipeline[part]) for part in ("train", "test"))
    rows = test.values.flatten(0, 1)
    torch.testing.assert_close(rows, pipeline["test_embed"], rtol=0.0, atol=1e-5)
    name = f"pc{neighbours}"
    points = train.values.flatten(0, 1)
    small = points @ pipeline[f"{name}_proj"].T
    anchors = mean_distances(small, pipeline[f"{name}_start"].long())
    picks = greedy_coreset(small, len(points) // 10, anchors)
    torch.testing.assert_close(points[picks], pipeline[f"{name}_bank"], rtol=0.0, atol=1e-5)
    found = score_by_bank(Bank(points[picks], picks, picks // 100), test, neighbours=neighbours)
    close(found.images, pipeline[f"{name}_image"])
    maps = PatchCore().pixel_maps(found.maps.view(-1, 10, 10), (40, 40))
    close(maps, pipeline[f"{name}_map"])


def test_projections_and_banks_are_made_a_batch_at_a_time() -> None:
    values = torch.randn(6, 10, 20)
    found = projected(features(values), 8, torch_generator(0, "x"))
    assert found.shape == (6, 10, 8)
    for width in (0, 20):
        assert torch.equal(projected(features(values), width, torch_generator(0, "x")), values)
    bank = build_bank(
        features(values),
        values.flatten(0, 1),
        share=0.3,
        starts=10,
        generator=torch_generator(0, "x"),
    )
    assert torch.equal(bank.features, values.flatten(0, 1)[bank.picks])
    assert torch.equal(bank.images, bank.picks // 10)
    assert len(bank.picks.unique()) == 18


def test_training_images_are_not_compared_with_themselves() -> None:
    values = torch.randn(6, 10, 20)
    values[3] += 30  # far from all others, and so all in the coreset
    fit = PatchCore(coreset=0.5).fit(features(values), group="a", seed=0)
    assert int(fit.training.images.argmax()) == 3
    assert float(fit.score(features(values)).images[3]) < float(fit.training.images[3])
    assert bool((fit.training.images > 0).all())
    assert torch.equal(fit.training.images, fit.training.maps.amax(1))


def test_seed_and_category_decide_what_is_stored() -> None:
    values = torch.randn(6, 10, 20)
    banks = [
        PatchCore(projection=4).fit(features(values), group=group, seed=seed).bank.picks.tolist()
        for group, seed in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    ]
    assert banks[0] == banks[1]
    assert banks[2] != banks[0] != banks[3]


@pytest.mark.parametrize("count", [1, 4])
def test_single_and_identical_images_and_more_neighbours_than_patches(count: int) -> None:
    values = torch.randn(1, 10, 20).expand(count, -1, -1)
    fit = PatchCore(coreset=0.05, neighbours=50, starts=99).fit(features(values), group="a", seed=0)
    found = fit.score(features(values[:1]))
    assert found.maps.shape == (1, 10)
    for scores in (fit.training, found):
        assert bool(torch.isfinite(scores.maps).all())
    flat = PatchCore().fit(features(torch.ones(count, 10, 20)), group="a", seed=0)
    assert flat.training.images.tolist() == [0] * count


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"coreset": 0}, "patchcore.coreset must be a share in (0, 1], got 0"),
        ({"coreset": "10%"}, "patchcore.coreset must be a share in (0, 1], got '10%'"),
        ({"projection": -1}, "patchcore.projection must be a whole number, 0 or more, got -1"),
        ({"starts": 0}, "patchcore.starts must be a whole number, 1 or more, got 0"),
        ({"patch": 2}, "patchcore.patch must be an odd whole number, 1 or more, got 2"),
        ({"width": 1.5}, "patchcore.width must be a whole number, 1 or more, got 1.5"),
        ({"sigma": -1}, "patchcore.sigma must be a number, 0 or more, got -1"),
        ({"sigma": float("nan")}, "patchcore.sigma must be a number, 0 or more, got nan"),
        ({"neighbours": True}, "patchcore.neighbours must be a whole number, 1 or more, got True"),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        PatchCore(**given)
    assert str(refused.value) == line
