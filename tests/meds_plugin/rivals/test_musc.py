from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.encoders.build import build_encoder
from meds_plugin.rivals import MuSc
from meds_plugin.rivals.base import TensorFeatures
from meds_plugin.rivals.local_features import neighbourhoods
from meds_plugin.rivals.musc import LayerFeatures, rescored
from meds_plugin.utils.errors import UserError

LAYERS = (5, 7)


def features(values: Tensor) -> TensorFeatures:
    return TensorFeatures(values, (2, 3), (8, 12), layers=LAYERS)


def slowly(queries: Tensor, stored: Tensor, settings: MuSc, *, same: bool) -> Tensor:
    """Score by the definition: Euclidean distances between unit vectors, image by image."""
    rounds = []
    for degree in settings.degrees:
        for layer in range(len(LAYERS)):
            both = []
            for values in (queries, stored):
                maps = values.split(LAYERS, dim=2)[layer].mT.unflatten(2, (2, 3))
                seen = neighbourhoods(maps, patch=degree, width=LAYERS[layer]).flatten(2).mT
                both.append(F.normalize(seen.double(), dim=2))
            distances = torch.cdist(both[0][:, None], both[1][None]).amin(3)  # [Q, N, P]
            if same:
                distances[torch.arange(len(queries)), torch.arange(len(queries))] = torch.inf
            others = len(stored) - same
            count = max(1, int(settings.interval[1] * others))
            rounds.append(distances.sort(1).values[:, :count].mean(1))
    return torch.stack(rounds).mean(0).float()


def test_scores_are_those_of_the_definition() -> None:
    train, test = torch.randn(9, 6, 12), torch.randn(4, 6, 12)
    settings = MuSc(neighbours=[1])
    fit = settings.fit(features(train), group="a", seed=0)
    expected = slowly(train, train, settings, same=True)
    torch.testing.assert_close(fit.training.maps, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(fit.training.images, fit.training.maps.amax(1))
    found = fit.score(features(test))
    torch.testing.assert_close(
        found.maps, slowly(test, train, settings, same=False), rtol=1e-4, atol=1e-4
    )


def test_an_image_is_scored_alone_whatever_comes_with_it() -> None:
    fit = MuSc().fit(features(torch.randn(9, 6, 12)), group="a", seed=0)
    test = torch.randn(4, 6, 12)
    together, alone = fit.score(features(test)), fit.score(features(test[2:3]))
    torch.testing.assert_close(alone.images[0], together.images[2])


def test_rescoring_averages_with_the_most_similar() -> None:
    known = torch.tensor([1.0, 2.0, 4.0])
    similar = torch.tensor([[-torch.inf, 0.5, 0.25], [0.5, -torch.inf, -0.3], [0.25, -0.3, -1.0]])
    similar[2, 2] = -torch.inf
    found = rescored(known, known, similar, [1, 2])
    first = (1 + (1 + 0.5 * 2) / 1.5) / 2
    second = (2 + (2 + 0.5 * 1) / 1.5) / 2
    third = (4 + (4 + 0.25 * 1) / 1.25) / 2
    torch.testing.assert_close(found, torch.tensor([first, second, third]))
    torch.testing.assert_close(rescored(known, known, similar, [1]), known)
    # a cosine below 0 has no weight, and there are but two others
    far = rescored(known, known, similar, [9])
    assert float(far[1]) == pytest.approx((2 + 0.5) / 1.5)


def test_layers_are_normalised_and_stand_side_by_side() -> None:
    encoder = build_encoder(
        model="resnet18", image_size=64, layers=[2, 3], weights="random", pyramid={"stride": 16}
    )
    module = LayerFeatures(encoder)
    found = module(torch.randn(2, 3, 64, 64))
    assert module.layers == (128, 256)
    assert found.shape == (2, 384, 4, 4)
    for part in found.split(module.layers, dim=1):
        assert part.flatten(1).mean(1).abs().max() < 1e-5
        assert (part.flatten(1).var(1, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("count", [2, 5])
def test_few_and_identical_images_give_finite_scores(count: int) -> None:
    values = torch.randn(1, 6, 12).expand(count, -1, -1)
    fit = MuSc(neighbours=[1, 99]).fit(features(values), group="a", seed=0)
    assert fit.training.maps.abs().max() < 1e-3
    assert bool(torch.isfinite(fit.score(features(values[:1])).images).all())


def test_one_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"method=musc compares .* nut has only one"):
        MuSc().fit(features(torch.randn(1, 6, 12)), group="nut", seed=0)


def test_maps_are_not_smoothed() -> None:
    maps = MuSc().pixel_maps(torch.tensor([[[0.0, 1.0]]]), (2, 3))
    assert maps.tolist() == [[[0, 0.5, 1], [0, 0.5, 1]]]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"degrees": [2]}, "musc.degrees must be a list of odd whole numbers, got [2]"),
        ({"degrees": 3}, "musc.degrees must be a list of odd whole numbers, got 3"),
        ({"neighbours": []}, "musc.neighbours must be a list of whole numbers, 1 or more, got []"),
        (
            {"interval": [0.3, 0]},
            "musc.interval must be two ascending shares in [0, 1], as [0,0.3], got [0.3, 0]",
        ),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        MuSc(**given)
    assert str(refused.value) == line
