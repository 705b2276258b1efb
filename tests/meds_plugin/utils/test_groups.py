from __future__ import annotations

from meds_plugin.utils.groups import group_indices


def test_groups_come_by_name_with_ascending_indices() -> None:
    groups = group_indices(["b", 1, "b", "a", "1"])
    assert list(groups) == ["1", "a", "b"]
    assert [indices.tolist() for indices in groups.values()] == [[1, 4], [3], [0, 2]]
