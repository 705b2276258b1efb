from __future__ import annotations

import re
import sys

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from meds_plugin.distributed.launch import follow_parent, rank_options, started
from meds_plugin.utils.process import launched_rank

VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "TORCHELASTIC_RUN_ID",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["run"])


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_has_no_rank(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert launched_rank() == 0
    assert rank_options() == []
    monkeypatch.setenv(name, "3")
    assert launched_rank() == 3
    assert rank_options() == ["hydra.job.name=rank_3", "hydra.output_subdir=null"]


def test_lightnings_own_ranks_have_their_options_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "argv", ["run", "hydra.job.name=train_ddp_process_1"])
    assert rank_options() == []


def test_the_time_names_a_run() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", started())
    follow_parent()  # nobody to follow


def test_ranks_of_torchrun_take_the_firsts_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torchruns = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    job = {
        "TORCHELASTIC_RUN_ID": "x",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(torchruns.port),
        "WORLD_SIZE": "2",
        "RANK": "0",
    }
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    first = started()
    monkeypatch.setenv("RANK", "1")
    # Its own clock is not asked.
    monkeypatch.setattr("meds_plugin.distributed.launch.datetime", None)
    assert started() == first


def test_ranks_of_slurm_take_the_jobs_number(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"SLURM_JOB_ID": "71", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert started() == "slurm/71-2"
