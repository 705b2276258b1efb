from __future__ import annotations

import torch

from meds_plugin.utils.groups import Clusters, group_indices


def test_groups_come_by_name_with_ascending_indices() -> None:
    groups = group_indices(["b", 1, "b", "a", "1"])
    assert list(groups) == ["1", "a", "b"]
    assert [indices.tolist() for indices in groups.values()] == [[1, 4], [3], [0, 2]]


def test_clusters_score_by_the_mean_of_images_and_the_highest_tile() -> None:
    alone = Clusters(range(3))
    values = torch.tensor([2.0, 0.5, 1.0])
    assert alone.trivial
    assert alone.scores(values) is values
    assert alone.among(torch.tensor([2, 0])) is None
    images = Clusters(["b", "a", "b", "c"])
    assert images.number.tolist() == [0, 1, 0, 2]
    assert images.first == [0, 1, 3]
    assert images.scores(torch.tensor([1.0, 5.0, 3.0, 0.0])).tolist() == [2, 5, 0]
    assert images.images(torch.tensor([0, 2])).tolist() == [0, 2, 3]
    found = images.among(torch.tensor([3, 2, 0]))
    assert found is not None
    assert found.tolist() == [1, 0, 0]
    # Two images of two tiles are near-duplicates; a third is on its own.
    tiles = Clusters([7, 7, 7, 7, 8, 8], torch.tensor([0, 0, 1, 1, 2, 2]))
    assert tiles.scores(torch.tensor([1.0, 4.0, 2.0, 0.0, 9.0, 3.0])).tolist() == [3, 9]
