from __future__ import annotations

import pytest
import torch

from meds_plugin.distributed.ranks import (
    from_all,
    from_first,
    gather_in_order,
    largest,
    my_chunks,
    rank_and_world,
    shard,
    share_out,
)


@pytest.mark.parametrize(("count", "world"), [(0, 3), (2, 3), (7, 3), (9, 3), (5, 1)])
def test_shards_are_contiguous_and_alike(count: int, world: int) -> None:
    shards = [shard(count, rank, world) for rank in range(world)]
    assert [i for each in shards for i in each] == list(range(count))
    sizes = [len(each) for each in shards]
    assert max(sizes) - min(sizes) <= 1


def test_tasks_are_given_out_so_that_loads_are_alike() -> None:
    assert share_out({"a": 3, "b": 2, "c": 2, "d": 1}, 2) == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_a_task_above_a_fair_share_is_everyones() -> None:
    costs = {"large": 10, "a": 1, "b": 2}
    assert share_out(costs, 2) == {"large": None, "b": 0, "a": 1}
    assert share_out(costs, 2, divisible=False) == {"large": 0, "b": 1, "a": 1}
    assert set(share_out(costs, 1).values()) == {0}


def test_one_process_keeps_everything_and_sends_nothing() -> None:
    values = torch.rand(3, 2)
    assert rank_and_world() == (0, 1)
    assert gather_in_order(values) is values
    assert from_first(lambda: "x") == "x"
    assert from_all(4) == [4]
    assert largest(4) == 4
    assert my_chunks(range(5), 2) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="do not fit together"):
        gather_in_order(None)
