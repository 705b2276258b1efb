"""Each case is a job of two small processes, because a watch ends the process it is in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.conftest import PROJECT

BEGIN = """
import os, sys, time
from torch import distributed
from meds_plugin.distributed.fail_fast import end_ranks, watch_ranks

rank = int(os.environ["RANK"])
distributed.init_process_group("gloo")
end_ranks("nobody is watched yet", status=7)
watch_ranks()
"""


class End(NamedTuple):
    status: int
    error: str


def run(body: str) -> tuple[End, End]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + body],
            cwd=PROJECT,
            env={**os.environ, **job, "RANK": str(rank), "PYTHONPATH": str(PROJECT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    first, second = (End(*each) for each in zip([r.returncode for r in ranks], errors, strict=True))
    return first, second


@pytest.mark.parametrize("culprit", [0, 1])
def test_wrong_input_on_one_rank_is_told_once_by_the_first(culprit: int) -> None:
    body = f"""
if rank == {culprit}:
    end_ranks("the input is wrong", status=2)
distributed.barrier()
"""
    first, second = run(body)
    assert (first.status, second.status) == (2, 2)
    assert first.error.count("the input is wrong") == 1
    assert ("rank 1" in first.error) == (culprit == 1)
    assert "the input is wrong" not in second.error


def test_a_rank_that_is_done_leaves_the_other_alone() -> None:
    first, second = run("time.sleep(rank)")
    assert (first.status, second.status) == (0, 0)
    assert "meds_plugin" not in first.error + second.error


def test_an_error_after_the_training_ends_all() -> None:
    first, second = run("distributed.barrier()\nassert rank == 0, 'no luck'\ntime.sleep(60)")
    assert (first.status, second.status) == (1, 1)
    assert "meds_plugin: rank 1: AssertionError: no luck" in first.error
    assert "Traceback" not in first.error
    assert "Traceback" in second.error
