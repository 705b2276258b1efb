from __future__ import annotations

import pytest
import torch

from meds_plugin.memory import expected_scores
from meds_plugin.memory.ensemble import ensemble_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.memory.subsampling import interval_weights
from meds_plugin.utils.errors import UserError


def test_bootstrap_comes_near_the_expectation() -> None:
    features = torch.randn(12, 5, 8)
    expected = ensemble_scores(features, MemorySettings(ratio=0.3), seed=0, group="a")
    settings = MemorySettings(ensemble="bootstrap", size=400, ratio=0.3)
    sampled = ensemble_scores(features, settings, seed=0, group="a")
    assert (expected - sampled).abs().mean() < 0.02


def test_sampled_memories_depend_on_seed_and_group_only() -> None:
    features = torch.randn(12, 5, 8)
    settings = MemorySettings(ensemble="bootstrap", size=3, ratio=0.2)
    first = ensemble_scores(features, settings, seed=0, group="a")
    torch.manual_seed(9)
    assert torch.equal(first, ensemble_scores(features, settings, seed=0, group="a"))
    assert not torch.equal(first, ensemble_scores(features, settings, seed=1, group="a"))
    assert not torch.equal(first, ensemble_scores(features, settings, seed=0, group="b"))


def test_one_image_is_its_own_memory_even_when_left_out() -> None:
    one = torch.randn(1, 4, 8)
    settings = MemorySettings(leave_self_out=True)
    torch.testing.assert_close(
        ensemble_scores(one, settings, seed=0, group="a"), torch.zeros(1, 4), atol=1e-6, rtol=0
    )


def test_queries_are_scored_by_the_training_features() -> None:
    features, queries = torch.randn(6, 4, 8), torch.randn(2, 3, 8)
    scores = ensemble_scores(features, MemorySettings(), seed=0, group="a", queries=queries)
    torch.testing.assert_close(scores, expected_scores(features, 0.1, queries=queries))


def test_single_patches_are_not_sampled_from_several_views() -> None:
    features, settings = torch.randn(2, 4, 8), MemorySettings(unit="patch")
    with pytest.raises(UserError, match=r"give memory\.unit=image"):
        ensemble_scores(features, settings, seed=0, group="a", views=["top", "side"])


def test_an_interval_of_the_distances_to_the_others_is_averaged() -> None:
    features, queries = torch.randn(11, 4, 8), torch.randn(2, 3, 8)
    unit = torch.nn.functional.normalize(features, dim=2)
    asked = torch.nn.functional.normalize(queries, dim=2)
    settings = MemorySettings(ensemble="interval", interval=[0.2, 0.5])

    own = (1 - torch.einsum("qpd,nzd->nqpz", unit, unit)).amin(3)
    own[torch.arange(11), torch.arange(11)] = torch.inf
    expected = own.sort(0).values[2:5].mean(0)  # of 10 others
    found = ensemble_scores(features, settings, seed=0, group="a")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    others = (1 - torch.einsum("qpd,nzd->nqpz", asked, unit)).amin(3)
    expected = others.sort(0).values[2:5].mean(0)  # of 11
    found = ensemble_scores(features, settings, seed=0, group="a", queries=queries)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_interval_holds_one_distance_at_least() -> None:
    assert interval_weights(3, [0, 0.1]).tolist() == [1.0]
    assert interval_weights(4, [0.9, 1]).tolist() == [0, 0, 0, 1]
    assert interval_weights(1, [0.5, 0.6]).tolist() == [1.0]
    torch.testing.assert_close(interval_weights(10, [0, 0.3]).float(), torch.ones(3) / 3)
    one = ensemble_scores(
        torch.randn(1, 4, 8), MemorySettings(ensemble="interval"), seed=0, group="a"
    )
    assert one.tolist() == [[0, 0, 0, 0]]
