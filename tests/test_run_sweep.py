"""Sweeps on the command line: `-m`, what stops them, and what takes them up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meds_plugin.config.overrides import value_of
from tests.conftest import PROJECT
from tests.processes import run, start
from tests.test_run import TINY, read_config, results

# In the place of Python: a job that does as its noise says, without loading torch.
JOB = """
import json, os, sys
from pathlib import Path

own = [a.partition("=")[2][1:-1] for a in sys.argv if a.startswith("hydra.run.dir=")]
folder = Path(own[-1].replace("\\\\'", "'"))
with (folder / "calls.txt").open("a") as file:
    file.write(json.dumps(sys.argv[3:]) + "\\n")
resumed = any(a.startswith("resume=") for a in sys.argv)
if folder.name.endswith("noise-2"):
    sys.exit("meds_plugin: noise is too high") if resumed else sys.exit(2)
if folder.name.endswith("noise-3"):
    print("Traceback: ...\\nOSError: disk full")
    sys.exit(1)
if folder.name.endswith("noise-4"):
    os.kill(os.getpid(), 11)
if folder.name.endswith("noise-5"):
    import time
    from meds_plugin.sweeps.sweep import end_with_the_sweep
    end_with_the_sweep()
    child = os.fork()  # as a rank, or a loader
    (folder / f"process.{os.getpid()}").touch()
    time.sleep(300)
(folder / "config.yaml").touch()
if folder.name == "noise-0.5" and not resumed:
    print("meds_plugin: folder is away", file=sys.stderr)
    sys.exit(2)
metrics = {"mean": {}, "categories": {}, "ranking": {"auprc": None}, "protocol": {}}
metrics["cut_short"] = "ended early" if folder.name == "noise-0.6" else None
(folder / "metrics.json").write_text(json.dumps(metrics))
sys.exit()
"""

Sweep = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stub") / "python"
    path.write_text(f"#!{sys.executable}\n{JOB}")
    path.chmod(0o755)
    return path


def sweeping(stub: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line with such jobs."""
    code = (
        "import signal, sys; from meds_plugin.run import main\n"
        # A shell's background jobs, which the tests may be one of, are deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.executable = {str(stub)!r}; sys.argv[0] = 'meds'; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def sweep(stub: Path) -> Sweep:
    """Return a function that runs a sweep to its end and gives status, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        process = sweeping(stub, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return call


def calls(folder: Path) -> list[list[str]]:
    """Return what a job was started with, each time."""
    file = folder / "calls.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def counts(folder: Path) -> dict[str, int]:
    """Return how often each job of a sweep was started."""
    return {job.parent.name: len(calls(job.parent)) for job in folder.glob("*/job.json")}


def ended(process: int) -> bool:
    """Whether a process is gone, or waits only to be forgotten."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_failed_jobs_are_named_at_the_end_and_lose_no_other(sweep: Sweep, tmp_path: Path) -> None:
    status, out, err = sweep("-m", "noise=3,4,2,0.1", f"hydra.sweep.dir={tmp_path}")
    assert status == 1
    lines = err.strip().splitlines()
    assert len(lines) == 4
    assert "job noise-2 failed: without a message" in lines[0]
    assert f"job noise-3 failed: OSError: disk full ({tmp_path}/noise-3/output.log)" in lines[1]
    assert "job noise-4 failed: ended by SIGSEGV" in lines[2]
    assert f"resume={tmp_path} runs what is missing" in lines[3]
    assert "1 of 4 jobs are finished" in out
    assert (tmp_path / "noise-0.1" / "metrics.json").exists()
    said = [line for line in out.splitlines() if "[meds_plugin.sweeps.sweep]" in line]
    assert len(said) == 8  # one a job's start, one its end
    assert "noise-0.1: done in" in said[-1]
    assert (tmp_path / "run.log").read_text().splitlines() == said


def test_a_rival_runs_once_for_all_detectors(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    own = ("-m", "backbone=dinomaly,inp_former", "method=plain,patchcore", "seed=0,1")
    status, out, err = sweep(*own, f"hydra.sweep.dir={folder}")
    assert status == 0, err
    assert "6 of 6 jobs are finished" in out
    assert counts(folder) == {
        "method-patchcore+seed-0": 1,
        "method-patchcore+seed-1": 1,
        **{
            f"backbone-{backbone}+method-plain+seed-{seed}": 1
            for backbone in ("dinomaly", "inp_former")
            for seed in (0, 1)
        },
    }


def test_what_is_missing_runs_what_is_there_does_not(sweep: Sweep, tmp_path: Path) -> None:
    where = f"hydra.sweep.dir={tmp_path}"
    status, _, err = sweep("-m", "noise=0,0.5,0.1", where)
    assert status == 2
    assert "job noise-0.5 failed: folder is away" in err
    assert counts(tmp_path) == {"noise-0": 1, "noise-0.5": 1, "noise-0.1": 1}
    # In another order, with more values of the key and of another one.
    status, out, err = sweep("-m", "method=meds,plain", "noise=0.2,0.5,0.1,0", where)
    assert (status, err) == (0, "")
    assert "8 of 8 jobs are finished" in out
    assert counts(tmp_path) == {
        "noise-0": 1,
        "noise-0.1": 1,
        "noise-0.5": 2,
        "method-meds+noise-0.2": 1,
        "method-plain+noise-0": 1,
        "method-plain+noise-0.1": 1,
        "method-plain+noise-0.2": 1,
        "method-plain+noise-0.5": 1,
    }
    folder = tmp_path / "noise-0.5"
    first, second = calls(folder)
    assert first == ["noise=0.5", f"hydra.run.dir='{folder}'"]
    assert second == [f"resume='{folder}'", "hydra.output_subdir=null", f"hydra.run.dir='{folder}'"]


def test_jobs_that_the_trainer_cuts_short_are_not_finished(sweep: Sweep, tmp_path: Path) -> None:
    status, out, err = sweep("-m", "noise=0,0.6", f"hydra.sweep.dir={tmp_path}")
    assert (status, err.count("\n")) == (0, 1)
    assert "1 of 2 jobs are finished" in out
    assert "job noise-0.6 was cut short by a limit of the trainer" in err


def test_resume_takes_up_a_sweep_from_anywhere(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "it's a sweep, with = signs [1] (Größe) #"
    given = ("hydra.verbose=false", f"hydra.sweep.dir={folder}")
    status, _, err = sweep("noise=0,0.5", *given, "--multirun")
    assert status == 2
    assert "job noise-0.5 failed: folder is away" in err
    status, out, err = sweep(f"resume={folder}")
    assert (status, err) == (0, "")
    assert "2 of 2 jobs are finished" in out
    assert counts(folder) == {"noise-0": 1, "noise-0.5": 2}
    assert "hydra.verbose=false" in calls(folder / "noise-0.5")[0]
    status, _, err = sweep("-m", f"resume={folder}", "noise=0.1")
    assert status == 2
    assert "leave out noise=0.1" in err


def test_a_sweep_over_folders_with_odd_names(sweep: Sweep, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("a, b", "it's [c] (d) Größe #=&", "e")]
    roots[0].mkdir()  # the comma separates no values
    folder = tmp_path / "sweep"
    given = ("data=folder", f"data.root={','.join(map(str, roots))}", f"hydra.sweep.dir={folder}")
    for _ in range(2):  # also when it is continued
        status, out, err = sweep("-m", *given)
        assert (status, err) == (0, "")
        assert "3 of 3 jobs are finished" in out
        jobs = [json.loads(file.read_text()) for file in folder.glob("*/job.json")]
        assert {job["settings"]["data"]["root"] for job in jobs} == {*map(str, roots)}
    assert set(counts(folder).values()) == {1}
    started = [calls(file.parent)[0][1] for file in folder.glob("*/job.json")]
    assert {value_of(call, "data.root") for call in ([each] for each in started)} == {
        *map(str, roots)
    }


def test_changed_settings_are_refused_in_one_line(sweep: Sweep, tmp_path: Path) -> None:
    where = f"hydra.sweep.dir={tmp_path}"
    assert sweep("-m", "noise=0,0.1", where)[0] == 0
    status, _, err = sweep("-m", "noise=0,0.2", "steps.finetune=7", where)
    assert status == 2
    first = err.splitlines()[0]
    assert f"job noise-0 failed: {tmp_path}/noise-0 holds a run with other settings" in first
    assert "(steps.finetune: 600, now 7): give those again" in first
    # The refusal has touched nothing.
    assert sweep("-m", "noise=0,0.1", where)[0] == 0
    assert counts(tmp_path) == {"noise-0": 1, "noise-0.1": 1, "noise-0.2": 1}


def test_jobs_get_the_configurations_and_the_folder_that_were_asked_for(
    sweep: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    folder = tmp_path / "sweep"
    status, _, err = sweep(
        "-m",
        *("--config-dir", str(tmp_path), "experiment=mine", "noise=0,0.1"),
        *(f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=n${noise}", "hydra.job.name=it"),
    )
    assert (status, err) == (0, "")
    assert counts(folder) == {"n0": 1, "n0.1": 1}
    (call,) = calls(folder / "n0")
    assert call[:4] == ["--config-dir", str(tmp_path), "experiment=mine", "noise=0"]
    assert set(call[4:]) == {"hydra.job.name=it", f"hydra.run.dir='{folder / 'n0'}'"}


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_sweep_that_is_stopped_takes_its_job_with_it(
    stub: Path, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    process = sweeping(stub, "-m", "noise=0,5,0.1", f"hydra.sweep.dir={tmp_path}")
    folder = tmp_path / "noise-5"
    until(lambda: len(list(folder.glob("process.*"))) == 2, process)
    process.send_signal(sent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert "Traceback" not in err
    if sent != signal.SIGKILL:
        assert "1 of 2 jobs started are finished" in out
        stopped, again = err.splitlines()
        assert "job noise-5 was stopped" in stopped
        assert again.endswith(f": continue with resume={tmp_path}")
    processes = [int(path.suffix[1:]) for path in folder.glob("process.*")]
    deadline = time.monotonic() + 60
    while not all(map(ended, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "noise-0.1").exists()


@pytest.mark.parametrize("launcher", ["local", "slurm", "cluster"])
def test_a_launcher_that_is_not_installed_is_refused(
    sweep: Sweep, tmp_path: Path, launcher: str
) -> None:
    target = "hydra.launcher._target_=hydra_plugins.not_there.Launcher"
    where = f"hydra.sweep.dir={tmp_path}"
    status, _, err = sweep("-m", "noise=0,1", f"hydra/launcher={launcher}", target, where)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert 'pip install "meds-plugin[launchers]"' in err


@pytest.mark.parametrize(("name", "value"), [("LOCAL_RANK", "0"), ("SLURM_PROCID", "1")])
def test_a_rank_starts_no_sweep(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    status, _, err = sweep("-m", "noise=0,1", f"hydra.sweep.dir={tmp_path}")
    assert status == 2
    assert "torchrun" in err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = sweep("-m", "noise=0,1", f"hydra.sweep.dir={tmp_path / 'file' / 'sweep'}")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "hydra.sweep.dir=DIR" in err


def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    site, folder = tmp_path / "site", tmp_path / "sweep"
    site.mkdir()
    (site / "torch.py").write_text(JOB)  # the first that a job loads when Hydra is done
    arguments = ("-m", "noise=0.1,3", "hydra/launcher=local", f"hydra.sweep.dir={folder}")
    process = subprocess.run(
        [sys.executable, "-m", "meds_plugin.run", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(PROJECT)))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 1, process.stderr
    assert "1 of 2 jobs are finished" in process.stdout
    assert "job noise-3 failed: OSError: disk full" in process.stderr
    assert counts(folder) == {"noise-0.1": 1, "noise-3": 1}
    said = [line.split(" - ")[1] for line in (folder / "run.log").read_text().splitlines()]
    assert len(said) == 4
    assert {"noise-0.1: starts", "noise-3: starts"} < set(said)


# From here on with true jobs.


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was killed in the middle of its third job of four."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    given = ("noise=0,0.4", "trainer.devices=1,2", *TINY, f"hydra.sweep.dir={folder}")
    process = start("-m", *given)
    third = folder / "noise-0.4+trainer.devices-1"
    until((third / "model.ckpt").exists, process)
    process.kill()
    process.communicate()
    assert not (third / "metrics.json").exists()
    assert not (folder / "noise-0.4+trainer.devices-2").exists()
    return folder


def test_a_stopped_sweep_runs_only_what_is_missing_and_ends_like_single_runs(
    stopped: Path, tmp_path: Path
) -> None:
    names = ("metrics.json", "model.ckpt", "ranking.csv", "config.yaml")
    jobs = [stopped / f"noise-0+trainer.devices-{devices}" for devices in (1, 2)]
    done = {job / name: (job / name).stat().st_mtime_ns for job in jobs for name in names}
    status, out, err = run(f"resume={stopped}")
    assert status == 0, err
    assert "4 of 4 jobs are finished" in out
    assert out.count("finished before, skipped") == 2
    assert "noise-0.4+trainer.devices-1: continues" in out
    assert "noise-0.4+trainer.devices-2: starts" in out
    assert all(file.stat().st_mtime_ns == time for file, time in done.items())
    for name, devices, noise in (("noise-0.4", 1, 0.4), ("noise-0", 2, 0.0)):
        job = stopped / f"{name}+trainer.devices-{devices}"
        alone = tmp_path / job.name
        given = (f"noise={noise}", f"trainer.devices={devices}", f"hydra.run.dir={alone}")
        status, _, err = run(*TINY, *given)
        assert status == 0, err
        ours, whole = results(job), results(alone)
        assert all(value.equal(whole[0][key]) for key, value in ours[0].items())
        assert ours[1:] == whole[1:]
        assert read_config(job).trainer.devices == devices
    with_two = json.loads((stopped / "noise-0.4+trainer.devices-2" / "metrics.json").read_text())
    assert with_two["noise"]["asked"] == 0.4
    assert with_two["protocol"]["steps_done"] == 24
