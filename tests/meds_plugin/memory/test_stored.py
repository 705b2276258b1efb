"""Memories over some stored images: the same in the mean, at a cost that grows with N."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from meds_plugin.memory.ensemble import ensemble_scores, stored_of
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.memory.scores import expected_scores, stored_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.memory.stored import stored_images
from meds_plugin.utils.errors import UserError


def made(count: int = 30) -> torch.Tensor:
    return torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(5))


def test_a_sample_is_keyed_keeps_shares_and_clusters() -> None:
    def sample(seed: int, **options: Any) -> torch.Tensor | None:
        return stored_images(12, 6, generator=torch.Generator().manual_seed(seed), **options)

    first = sample(0)
    assert first is not None
    assert first.tolist() == sorted(set(first.tolist()))
    assert len(first) == 6
    again, other = sample(0), sample(1)
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    strata = ["a"] * 4 + ["b"] * 8
    split = sample(0, strata=strata)
    assert split is not None
    assert [strata[image] for image in split.tolist()].count("a") == 2
    clusters = torch.arange(12) // 2
    assert sample(0, clusters=clusters) is None  # six clusters
    whole = stored_images(12, 3, generator=torch.Generator().manual_seed(0), clusters=clusters)
    assert whole is not None
    assert sorted(clusters[whole].tolist()) == sorted(2 * clusters[whole].unique().tolist())
    assert stored_images(12, None, generator=torch.Generator()) is None


def test_few_images_are_scored_exactly() -> None:
    features = made()
    exact = expected_scores(features, 0.2)
    assert torch.equal(expected_scores(features, 0.2, stored=30), exact)
    assert torch.equal(expected_scores(features, 0.2, stored=None), exact)


@pytest.mark.parametrize("queries", [False, True])
def test_the_mean_over_samples_is_that_over_all_memories_of_that_size(queries: bool) -> None:
    features = made()
    asked = made(40)[30:] if queries else None
    # Six of the fifteen stored images are six of thirty; an image is in none of its memories.
    wanted = expected_scores(
        features, 6 / 30, queries=asked, replacement=False, leave_self_out=not queries
    )
    found = torch.stack(
        [
            expected_scores(
                features, 6 / 15, queries=asked, replacement=False, stored=15, seed=seed
            )
            for seed in range(800)
        ]
    )
    error = (found.mean(0) - wanted).abs()
    spread = found.std(0) / 800**0.5
    assert float((error / spread).max()) < 5
    assert float(error.max()) < 0.01


def test_what_is_scored_in_parts_is_the_same() -> None:
    features, settings = made(), MemorySettings(stored=8)
    views = ["ab"[place % 2] for place in range(30)]
    clusters = torch.arange(30) // 2
    for options in ({}, {"views": views}, {"clusters": clusters}):
        named: dict[str, Any] = {"seed": 3, "group": "g", **options}
        stored = stored_of(30, settings, **named)
        assert stored is not None
        whole = ensemble_scores(features, settings, stored=stored, **named)
        parts = [torch.arange(13), torch.arange(13, 30)]
        found = [
            ensemble_scores(features, settings, stored=stored, images=part, **named)
            for part in parts
        ]
        torch.testing.assert_close(torch.cat(found), whole, atol=1e-6, rtol=0)
        again = ensemble_scores(features, settings, stored=stored, queries=features[:4], **named)
        # As queries, stored images find themselves: their memories are not theirs alone.
        own = torch.isin(torch.arange(4), stored)
        assert bool((again[own] < whole[:4][own]).all())
        torch.testing.assert_close(again[~own], whole[:4][~own], atol=1e-6, rtol=0)


def test_the_second_look_samples_from_stored_images_too() -> None:
    features = made()
    vectors, maps = PatchVectors.of(features), expected_scores(features, 0.3)
    options: dict[str, Any] = {"keep": 0.7, "ratio": 0.4}
    every = refined_scores(vectors, maps, **options, stored=torch.arange(30))
    plain = refined_scores(vectors, maps, **options)
    torch.testing.assert_close(every, plain, atol=1e-6, rtol=0)
    some = refined_scores(vectors, maps, **options, stored=torch.arange(0, 30, 2))
    assert not torch.allclose(some, plain)
    one = refined_scores(vectors, maps, **options, stored=maps.mean(1).argmax()[None])
    assert torch.equal(one, maps.amax(1))  # nothing stored is kept: the first scores


def test_wrong_values_are_refused() -> None:
    features = made()
    with pytest.raises(ValueError, match="stored needs unit='image'"):
        expected_scores(features, 0.3, stored=4, unit="patch")
    with pytest.raises(ValueError, match="stored must be at least 1"):
        expected_scores(features, 0.3, stored=0)
    vectors = PatchVectors.of(features)
    with pytest.raises(ValueError, match="every memory holds all stored images"):
        stored_scores(vectors, 1.0, torch.arange(4), replacement=False)
    for wrong in (1, 2.5, "x", True):
        with pytest.raises(UserError, match=r"memory\.stored must be a whole number"):
            MemorySettings(stored=wrong)  # type: ignore[arg-type]
    patches = MemorySettings(stored=4, unit="patch")
    assert stored_of(30, patches, seed=0, group="g") is None
