"""Images that count as one in memories: the same as one image with all their patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from meds_plugin.memory.ensemble import ensemble_scores
from meds_plugin.memory.interval import interval_scores
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.memory.scores import expected_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.utils.errors import UserError

# Twelve images in six clusters, not side by side.
CLUSTERS = torch.tensor([3, 0, 5, 1, 2, 4, 0, 1, 5, 4, 2, 3])


def made() -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of the images, and of the clusters as images of twice as many patches."""
    features = torch.randn(12, 5, 7, generator=torch.Generator().manual_seed(3))
    joined = torch.stack([features[number == CLUSTERS].flatten(0, 1) for number in range(6)])
    return features, joined


def by_cluster(scores: torch.Tensor) -> torch.Tensor:
    return torch.stack([scores[number == CLUSTERS].flatten() for number in range(6)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"replacement": False},
        {"leave_self_out": True},
        {"strata": list("ababab")},
        {"strata": list("ababab"), "leave_self_out": True},
    ],
)
@pytest.mark.parametrize("budget", [None, 1])
def test_expected_scores(options: dict[str, Any], budget: int | None) -> None:
    features, joined = made()
    wanted = expected_scores(joined, 0.4, **options)
    if "strata" in options:
        options = options | {"strata": ["ababab"[number] for number in CLUSTERS]}
    found = expected_scores(features, 0.4, clusters=CLUSTERS, memory_budget=budget, **options)
    torch.testing.assert_close(by_cluster(found), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", ["interval", "bootstrap", "expected"])
def test_ensembles(kind: Any) -> None:
    features, joined = made()
    settings = MemorySettings(ensemble=kind, ratio=0.3, size=7, interval=[0.0, 0.5])
    wanted = ensemble_scores(joined, settings, seed=1, group="a")
    found = ensemble_scores(features, settings, seed=1, group="a", clusters=CLUSTERS)
    torch.testing.assert_close(by_cluster(found), wanted, atol=2e-5, rtol=0)


def test_the_second_look_keeps_and_leaves_whole_clusters() -> None:
    features, joined = made()
    first = expected_scores(joined, 0.3)
    # One patch of each makes its score: the highest.
    wanted = refined_scores(PatchVectors.of(joined), first, keep=0.7, ratio=0.4, top=0.0)
    spread = torch.empty(12, 5)
    for number in range(6):
        spread[number == CLUSTERS] = first[number].view(2, 5)
    found = refined_scores(
        PatchVectors.of(features), spread, keep=0.7, ratio=0.4, top=0.0, clusters=CLUSTERS
    )
    highest = torch.stack([found[number == CLUSTERS].max() for number in range(6)])
    assert int(highest.argmax()) == int(wanted.argmax())
    lone = torch.arange(12)
    same = refined_scores(PatchVectors.of(features), spread, keep=0.7, ratio=0.4, clusters=lone)
    plain = refined_scores(PatchVectors.of(features), spread, keep=0.7, ratio=0.4)
    assert torch.equal(same, plain)


def test_a_single_cluster_has_nothing_to_be_compared_with() -> None:
    features, _ = made()
    one = torch.zeros(12, dtype=torch.int64)
    assert float(interval_scores(features, [0.0, 0.3], clusters=one).abs().max()) == 0
    with pytest.raises(ValueError, match="cannot be left out"):
        expected_scores(features, 0.3, clusters=one, leave_self_out=True)


def test_wrong_clusters_are_refused() -> None:
    features, _ = made()
    with pytest.raises(ValueError, match="a cluster for each of the 12 images"):
        expected_scores(features, 0.3, clusters=CLUSTERS[:4])
    with pytest.raises(ValueError, match="clusters need unit='image'"):
        expected_scores(features, 0.3, clusters=CLUSTERS, unit="patch")
    settings = MemorySettings(unit="patch")
    with pytest.raises(UserError, match="cannot count several images as one"):
        ensemble_scores(features, settings, seed=0, group="a", clusters=CLUSTERS)
