"""Several ranks give what one process gives, and end together."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from tests.conftest import PROJECT
from tests.ddp_ranks import fit, holding, make_data, results
from tests.processes import run, start
from tests.test_run import TINY

MINUTE = 60.0


class Job(NamedTuple):
    """A job that has ended."""

    folder: Path
    found: list[dict[str, Any]]  # by every rank
    status: list[int]
    errors: list[str]
    seconds: float  # between the first rank's end and the last's


def run_ranks(world: int, folder: Path) -> Job:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    python = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ddp_ranks", str(world), str(folder)]
    logs = [folder / f"{rank}.log" for rank in range(world)]
    ranks = [
        subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, **here, **python, "LOCAL_RANK": str(rank)},
            stderr=logs[rank].open("w"),
        )
        for rank in range(world)
    ]
    try:
        while all(rank.poll() is None for rank in ranks):
            time.sleep(0.05)
        ended = time.monotonic()
        status = [rank.wait(timeout=2 * MINUTE) for rank in ranks]
        seconds = time.monotonic() - ended
    finally:
        for rank in ranks:
            rank.kill()
    errors = [log.read_text() for log in logs]
    paths = [folder / f"rank{rank}.pt" for rank in range(world)]
    assert all(path.is_file() for path in paths), errors
    return Job(folder, [torch.load(p, weights_only=True) for p in paths], status, errors, seconds)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return results(1)


@pytest.fixture(scope="module", params=[2, 3])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_ranks(request.param, tmp_path_factory.mktemp(f"ranks{request.param}"))


def test_memory_scores_are_those_of_one_process(job: Job, alone: dict[str, Any]) -> None:
    for found in job.found:
        for name, kind in product(("fixed", "memory"), ("memory", "images")):
            ours, expected = found[name][kind], alone[name][kind]
            torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_a_fixed_model_has_the_same_selections_scores_and_metrics(
    job: Job, alone: dict[str, Any]
) -> None:
    expected = alone["fixed"]
    assert len(json.loads(expected["history"])) > 4
    for found in (each["fixed"] for each in job.found):
        assert found["history"] == expected["history"]
        assert found["metrics"] == expected["metrics"]
        assert torch.equal(found["selected"], expected["selected"])
        assert torch.equal(found["score"], expected["score"])


def test_the_memory_judges_test_images_alike(job: Job, alone: dict[str, Any]) -> None:
    expected = json.loads(alone["memory"]["metrics"])["mean"]
    for found in job.found:
        assert json.loads(found["memory"]["metrics"])["mean"] == pytest.approx(expected, abs=1e-6)


def test_a_rival_has_the_same_scores_and_metrics(job: Job, alone: dict[str, Any]) -> None:
    for found in job.found:
        assert torch.equal(found["rival"]["score"], alone["rival"]["score"])
        assert found["rival"]["metrics"] == alone["rival"]["metrics"]


def test_lightnings_test_counts_every_image_once(job: Job) -> None:
    for found in job.found:
        tested, expected = json.loads(found["tested"]), json.loads(found["evaluated"])
        assert {name: tested[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["trained", "anew"])
def test_training_has_the_gradients_of_the_whole_batch(
    job: Job, alone: dict[str, Any], name: str
) -> None:
    expected = alone[name]
    for found in (each[name] for each in job.found):
        for key, value in expected["weights"].items():
            torch.testing.assert_close(found["weights"][key], value, atol=1e-4, rtol=0)
        assert [row["kept"] for row in json.loads(found["history"])] == [
            row["kept"] for row in json.loads(expected["history"])
        ]


def test_all_ranks_hold_the_same(job: Job) -> None:
    first = job.found[0]
    for other in job.found[1:]:
        for name in ("trained", "anew"):
            assert other[name]["history"] == first[name]["history"]
            assert other[name]["metrics"] == first[name]["metrics"]
            for key, value in first[name]["weights"].items():
                assert torch.equal(other[name]["weights"][key], value), key


def test_parts_come_in_the_order_of_ranks(job: Job) -> None:
    ranks = range(len(job.found))
    expected = torch.tensor([[float(r)] * 2 for r in ranks for _ in range(r)], dtype=torch.float64)
    for found in job.found:
        assert torch.equal(found["gathered"], expected)
        assert found["said"] == [list(ranks), "by 0"]
        assert found["largest"] == ranks[-1]


def test_a_rank_that_fails_or_is_killed_ends_all_with_a_message(job: Job) -> None:
    last = len(job.found) - 1
    assert job.seconds < MINUTE
    assert all(status != 0 for status in job.status)
    told = {1: "ValueError: the lamp of rank 1 is broken", 2: "perhaps it was killed"}[last]
    assert f"meds_plugin: rank {last}: " in job.errors[0]
    assert told in job.errors[0]
    if last == 1:
        assert "Traceback" in job.errors[1]
    assert "Traceback" not in job.errors[0]  # that its peer is gone is no news


def test_another_number_of_ranks_goes_on_with_the_checkpoint(
    job: Job, alone: dict[str, Any]
) -> None:
    data = make_data()
    model, trainer = fit(data, world=1)
    saver = RunCheckpoint(job.folder / "resumed.ckpt", model.plan, every=100)
    trainer.callbacks.append(saver)  # type: ignore[attr-defined]
    checkpoint = job.folder / "model.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 8
    with holding():
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    assert model.global_step == model.total_steps
    for key, value in alone["trained"]["weights"].items():
        torch.testing.assert_close(model.detector.state_dict()[key], value, atol=1e-4, rtol=0)


def test_two_machines_with_caches_of_their_own_give_what_one_process_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = run(*TINY, f"hydra.run.dir={tmp_path / 'alone'}")
    assert status == 0, err
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    given = ["num_nodes=2", "devices=1", "strategy=ddp", "accelerator=cpu"]
    job = [*TINY, *(f"trainer.{each}" for each in given), "cache.gb=1e-4", "cache.dir=cache"]
    nodes = [tmp_path / f"node{number}" for number in range(2)]
    machines = []
    for number, folder in enumerate(nodes):
        folder.mkdir()
        monkeypatch.setenv("NODE_RANK", str(number))
        machines.append(start(*job, f"hydra.run.dir={tmp_path / 'together'}", cwd=folder))
    try:
        errors = [machine.communicate(timeout=3 * MINUTE)[1] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], errors
    alone, together = (
        {row["path"]: row for row in csv.DictReader((tmp_path / name / "ranking.csv").open())}
        for name in ("alone", "together")
    )
    assert alone.keys() == together.keys()
    for path, row in alone.items():
        assert float(together[path]["memory"]) == pytest.approx(float(row["memory"]), abs=1e-6)
    counts = [len(list(folder.glob("cache/*/*.tensor"))) for folder in nodes]
    assert min(counts) > 0


def test_a_killed_rank_of_a_run_ends_it_and_one_rank_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = (*TINY, "trainer.devices=2", "cache.gb=1e-4", f"hydra.run.dir='{folder}'")
    process = start(*job)  # with a cache in files, which ranks share
    try:
        while not (folder / "model.ckpt").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        _, err = process.communicate(timeout=MINUTE)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "meds_plugin: rank 1: ended without a message" in err
    assert "Traceback" not in err
    assert not (folder / "metrics.json").exists()
    status, _, err = run(f"resume={folder}", "trainer.devices=1")
    assert status == 0, err
    assert not (folder / "cache").exists()
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["steps_done"] == protocol["total_steps"] == 24


def children(process: int) -> list[int]:
    """Return the ranks that the first one, a process, has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == process:
                found.append(int(stat.parent.name))
    return found
