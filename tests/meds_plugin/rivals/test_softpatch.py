from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from meds_plugin.rivals import SoftPatch, softpatch
from meds_plugin.rivals.base import TensorFeatures
from meds_plugin.rivals.coreset import greedy_coreset, mean_distances
from meds_plugin.rivals.patchcore import Bank, score_by_bank
from meds_plugin.rivals.softpatch import gaussian, lof, nearest_other, noise_threshold
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.rivals.test_patchcore import close, embedded, features, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from meds_plugin.rivals.softpatch import NoiseScore
    from tests.conftest import Arrays

__all__ = ["pipeline"]

KINDS: list[tuple[str, NoiseScore, float]] = [
    ("lof", "lof", 5e-5),
    ("lof_gpu", "lof", 5e-5),
    ("nearest", "nearest", 3e-2),
    ("gaussian", "gaussian", 2e-4),
]


@pytest.fixture
def arrays(golden: Callable[[str], Arrays]) -> dict[str, Tensor]:
    return {k: torch.as_tensor(v) for k, v in golden("baselines/softpatch_scores").items()}


@pytest.mark.parametrize(("name", "noise", "tolerance"), KINDS)
def test_noise_scores_and_what_follows_are_the_authors(
    arrays: dict[str, Tensor], name: str, noise: NoiseScore, tolerance: float
) -> None:
    train, test = (arrays[key].float().flatten(1, 2) for key in ("features", "test_features"))
    weights = arrays[f"{name}_weight"].float()
    found = SoftPatch(noise=noise).noise_scores(train)
    torch.testing.assert_close(found, weights, rtol=0.0, atol=tolerance)
    threshold = noise_threshold(weights, 0.15)
    assert threshold == pytest.approx(float(arrays[f"{name}_threshold"]), abs=1e-6)
    kept = (weights <= threshold).flatten()
    assert torch.equal(kept, arrays[f"{name}_keep"].bool())
    ours = (found <= noise_threshold(found, 0.15)).flatten()
    assert int((ours != kept).sum()) <= (0 if noise == "lof" else 4)

    points = train.flatten(0, 1)
    expected = arrays[f"{name}_idx"].long()
    anchors = mean_distances(points, arrays[f"{name}_start"].long())
    picks = greedy_coreset(points, len(expected), anchors, weights=kept.float())
    assert torch.equal(picks, expected)
    bank = Bank(points[picks], picks, picks // 25, weights.flatten()[picks].clamp(min=0))
    scores = score_by_bank(bank, TensorFeatures(test, (5, 5), (40, 40)))
    for ours_, theirs in (
        (scores.maps.flatten(), arrays[f"{name}_test_patch"].flatten()),
        (scores.images, arrays[f"{name}_test_image"]),
        (SoftPatch().pixel_maps(scores.maps.view(-1, 5, 5), (40, 40)), arrays[f"{name}_test_map"]),
    ):
        torch.testing.assert_close(ours_, theirs.float(), rtol=0.0, atol=1e-3)


def test_the_number_of_neighbours_matters_as_for_the_authors(arrays: dict[str, Tensor]) -> None:
    found = SoftPatch(lof_k=6).noise_scores(arrays["features"].float().flatten(1, 2))
    torch.testing.assert_close(found, arrays["lof6_weight"].float(), rtol=0.0, atol=5e-5)


def test_the_whole_way_from_images_is_the_authors(pipeline: dict[str, Tensor]) -> None:
    train, test = (embedded(pipeline, pipeline[part]) for part in ("train", "test"))
    noise = SoftPatch().noise_scores(train.values @ pipeline["sp_proj_score"].T)
    expected = pipeline["sp_patch_weight"]
    torch.testing.assert_close(noise.flatten(), expected.flatten(), rtol=0.0, atol=2e-3)
    kept = (noise <= noise_threshold(noise, 0.15)).flatten().float()
    points = train.values.flatten(0, 1)
    small = points @ pipeline["sp_proj_coreset"].T
    anchors = mean_distances(small, pipeline["sp_start"].long())
    picks = greedy_coreset(small, len(points) // 10, anchors, weights=kept)
    torch.testing.assert_close(points[picks], pipeline["sp_bank"], rtol=0.0, atol=1e-5)
    weights = noise.flatten()[picks]
    torch.testing.assert_close(weights, pipeline["sp_coreset_weight"], rtol=0.0, atol=2e-3)
    bank = Bank(points[picks], picks, picks // 100, pipeline["sp_coreset_weight"])
    found = score_by_bank(bank, test)
    close(found.images, pipeline["sp_image"])
    close(SoftPatch().pixel_maps(found.maps.view(-1, 10, 10), (40, 40)), pipeline["sp_map"])


@pytest.mark.parametrize("table", [1, 1 << 22])
def test_lof_is_scikit_learns(monkeypatch: pytest.MonkeyPatch, table: int) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    monkeypatch.setattr(softpatch, "_TABLE_ELEMENTS", table)
    points = 50 + torch.randn(3, 12, 4)
    points[0, :4] = points[0, 0]  # duplicates, far from the origin
    for k in (3, 40):
        found = lof(points.double(), k)
        for own, expected in zip(points, found, strict=True):
            model = neighbors.LocalOutlierFactor(n_neighbors=min(k, 11)).fit(own.double().numpy())
            np.testing.assert_allclose(expected.numpy(), -model.negative_outlier_factor_, rtol=1e-6)


def test_nearest_and_gaussian_are_distances_above_one() -> None:
    points = torch.randn(2, 9, 3)
    distances = torch.cdist(points, points) + 1e9 * torch.eye(9)
    torch.testing.assert_close(nearest_other(points), 1 + distances.amin(2))
    one = points[1].double()
    inverse = torch.linalg.inv(one.T.cov() + 0.01 * torch.eye(3))
    centred = one - one.mean(0)
    expected = 1 + (centred @ inverse * centred).sum(1).sqrt()
    torch.testing.assert_close(gaussian(points)[1].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", ["lof", "nearest", "gaussian"])
def test_defects_rank_first_and_are_not_stored(noise: NoiseScore) -> None:
    values = torch.randn(20, 6, 8)
    values[4, 2] += 9
    values[11, 5] -= 9
    fit = SoftPatch(noise=noise, starts=1, dropped=0.02, coreset=0.5).fit(
        features(values), group="a", seed=0
    )
    assert set(fit.training.images.topk(2).indices.tolist()) == {4, 11}
    assert fit.training.maps.shape == (20, 6)
    assert not {4 * 6 + 2, 11 * 6 + 5} & set(fit.bank.picks[1:].tolist())
    assert fit.bank.weights is not None
    assert bool((fit.bank.weights >= 0).all())
    assert SoftPatch(soft=False).fit(features(values), group="a", seed=0).bank.weights is None


@pytest.mark.parametrize("noise", ["lof", "nearest", "gaussian"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_and_identical_images_give_finite_scores(noise: NoiseScore, count: int) -> None:
    for values in (torch.ones(count, 5, 8), torch.randn(count, 5, 8)):
        fit = SoftPatch(noise=noise, lof_k=30).fit(features(values), group="a", seed=0)
        found = fit.score(features(torch.randn(1, 5, 8)))
        for scores in (fit.training, found):
            assert bool(torch.isfinite(scores.maps).all())
            assert scores.images.shape == scores.maps.shape[:1]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"noise": "knn"}, "softpatch.noise must be lof or nearest or gaussian, got 'knn'"),
        ({"lof_k": 0}, "softpatch.lof_k must be a whole number, 1 or more, got 0"),
        ({"dropped": 1}, "softpatch.dropped must be a share in [0, 1), got 1"),
        ({"soft": 1}, "softpatch.soft must be true or false, got 1"),
        ({"coreset": 2}, "softpatch.coreset must be a share in (0, 1], got 2"),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        SoftPatch(**given)
    assert str(refused.value) == line
