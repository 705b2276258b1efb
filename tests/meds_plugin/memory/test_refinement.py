from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.memory import expected_scores
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.metrics import image_score

N, P, D = 24, 60, 6


def made() -> tuple[Tensor, Tensor]:
    """Return features, and their first scores."""
    features = torch.randn(N, P, D, generator=torch.Generator().manual_seed(3))
    return features, expected_scores(features, 0.1)


def every_patch(features: Tensor, kept: list[int], ratio: float) -> Tensor:
    """Return ``[N, P]`` mean distances to memories of kept images, never with the image itself."""
    unit = F.normalize(features, dim=-1)
    rows = []
    for image in range(N):
        others = [index for index in kept if index != image]
        distances = (1 - unit[image] @ unit[others].flatten(0, 1).T).view(P, len(others), P).amin(2)
        ranks = torch.arange(len(others) + 1, dtype=torch.float64)
        chance = ((len(others) - ranks) / len(others)) ** -(-len(kept) * ratio // 1)
        rows.append(distances.sort(1).values.double() @ (chance[:-1] - chance[1:]))
    return torch.stack(rows).float()


@pytest.mark.parametrize(
    ("keep", "ratio", "top"), [(0.7, 0.2, 0.01), (0.5, 0.5, 0.04), (1.0, 0.2, 0)]
)
def test_looks_again_at_the_highest_patches_of_every_image(
    keep: float, ratio: float, top: float
) -> None:
    features, maps = made()
    first = image_score(maps[:, None], top)
    scores = refined_scores(PatchVectors.of(features), maps, keep=keep, ratio=ratio, top=top)
    if keep == 1:
        assert scores.equal(first)
        return
    kept = first.argsort()[: int(keep * N)].tolist()
    again = every_patch(features, kept, ratio).gather(1, maps.topk(3, dim=1).indices)
    expected = again.topk(max(1, int(top * P)), dim=1).values.mean(1)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_some_images_score_the_same_as_among_all() -> None:
    features, maps = made()
    vectors = PatchVectors.of(features)
    images = torch.tensor([3, 4, 5, 11])
    scores = refined_scores(vectors, maps, keep=0.7, ratio=0.2)
    some = refined_scores(vectors, maps, keep=0.7, ratio=0.2, images=images)
    torch.testing.assert_close(some, scores[images])


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_keep_their_first_scores(count: int) -> None:
    features, maps = made()
    vectors = PatchVectors.of(features[:count])
    scores = refined_scores(vectors, maps[:count], keep=0.7, ratio=0.2)
    assert scores.equal(image_score(maps[:count, None]))


def test_a_frequent_defect_stands_out_more() -> None:
    normal = 0.05 * torch.randn(40, 16, D, generator=torch.Generator().manual_seed(1)) + 1
    defects = normal.clone()
    defects[28:, 5] = torch.tensor([-1.0, 1, -1, 1, -1, 1])  # 12 of 40 show the same defect
    maps = expected_scores(defects, 0.1)
    first = image_score(maps[:, None])
    again = refined_scores(PatchVectors.of(defects), maps, keep=0.7, ratio=0.2)
    assert float(first[28:].mean()) < 0.4
    assert float(again[28:].mean()) > 0.9
    assert float(again[:28].max()) < 0.1
