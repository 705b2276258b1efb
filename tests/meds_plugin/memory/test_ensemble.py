from __future__ import annotations

import pytest
import torch

from meds_plugin.memory import expected_scores
from meds_plugin.memory.ensemble import ensemble_scores
from meds_plugin.memory.settings import MemorySettings
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
    with pytest.raises(UserError, match=r"take memory\.unit=image"):
        ensemble_scores(features, settings, seed=0, group="a", views=["top", "side"])
