"""How runs end early: signals, damaged checkpoints, disks that cannot be written."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from meds_plugin import load
from meds_plugin.config.command_line import run_command
from meds_plugin.run import main
from meds_plugin.wrapper import MeDSWrapper
from tests.processes import run, start
from tests.test_run import TINY, results

RUN = ("noise=0.4", *TINY, "checkpoint_every=1000")
QUIET = (*RUN, "trainer.enable_progress_bar=false")
Main = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Start as from a terminal: shells let background jobs, such as these tests, ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Return a function that runs the command line here and gives status and the line of errors."""
    for name in ("MEDS_STARTED", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")  # restored afterwards
    monkeypatch.setattr(logging, "raiseExceptions", True)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["meds_plugin.run", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        lines = [line for line in capsys.readouterr().err.splitlines() if "meds_plugin:" in line]
        assert len(lines) == 1, lines
        assert isinstance(ended.value.code, int)
        return ended.value.code, lines[0]

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    status, _, err = run(*QUIET, f"hydra.run.dir={folder}")
    assert status == 0, err
    return folder


def same(ours: Path, other: Path) -> bool:
    """Whether two runs ended with the same results."""
    found, expected = results(ours), results(other)
    weights = all(value.equal(expected[0][key]) for key, value in found[0].items())
    return weights and found[1:] == expected[1:]


def saved_step(folder: Path) -> int:
    step: int = torch.load(folder / "model.ckpt", weights_only=True)["global_step"]
    return step


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "tmp" in path.name or path.name == ".probe"]


def in_step(
    monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None], times: int = 1
) -> None:
    """Do something in the middle of a training step."""
    trained = MeDSWrapper.training_step

    def training_step(self: MeDSWrapper, *arguments: Any) -> Any:
        if self.global_step == step:
            for _ in range(times):
                action()
        return trained(self, *arguments)

    monkeypatch.setattr(MeDSWrapper, "training_step", training_step)


# Signals.


@pytest.mark.parametrize(
    ("place", "number", "step"),
    [
        ("meds_plugin.callbacks.memory_ensemble.ensemble_scores", signal.SIGINT, None),
        ("distillation", signal.SIGINT, 6),
        ("fine-tuning", signal.SIGTERM, 17),
        ("meds_plugin.job.evaluate", signal.SIGINT, 24),
        ("meds_plugin.job.write_review", signal.SIGTERM, 24),
    ],
)
def test_a_stopped_run_loses_nothing_and_says_how_to_continue(
    command: Main,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whole: Path,
    place: str,
    number: signal.Signals,
    step: int | None,
) -> None:
    folder = tmp_path / "a run"
    with monkeypatch.context() as patched:
        if place.startswith("meds_plugin"):
            patched.setattr(place, lambda *_, **__: signal.raise_signal(number))
        else:
            assert step
            in_step(patched, step - 1, lambda: signal.raise_signal(number))
        status, line = command(*QUIET, f"hydra.run.dir={folder}")
    assert status == 128 + number
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end"}[number]
    assert line == f"meds_plugin: {word}: continue with 'resume={folder}'"
    assert (saved_step(folder) if (folder / "model.ckpt").exists() else None) == step
    assert not temporary_files(folder)
    assert not (folder / "metrics.json").exists()
    status, _, err = run(f"resume={folder}")
    assert status == 0, err
    assert same(folder, whole)


def test_a_second_signal_does_not_wait_for_the_step(
    command: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_step(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT), times=2)
    status, line = command(*QUIET, f"hydra.run.dir={tmp_path}")
    assert status == 130
    assert line == f"meds_plugin: interrupted: continue with resume={tmp_path}"
    assert saved_step(tmp_path) == 0


def test_an_error_that_follows_from_a_signal_is_not_reported(
    command: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop() -> None:
        signal.raise_signal(signal.SIGINT)
        msg = "a worker has ended"
        raise RuntimeError(msg)

    in_step(monkeypatch, 2, stop)
    assert command(*QUIET, f"hydra.run.dir={tmp_path}")[0] == 130


def test_before_there_is_something_to_resume(
    command: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("meds_plugin.run.register_detectors", stop)
    again = "meds_plugin: told to end: run the command again"
    assert command(f"hydra.run.dir={tmp_path}") == (143, again)


def test_ctrl_c_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    folder = tmp_path / 'a "run", (1)'
    given = (*RUN, "trainer.devices=2", "steps.finetune=5000", f"hydra.run.dir={folder}")
    process = start(*given, session=True)
    while not (folder / "model.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if "meds_plugin:" in line]
    assert lines == [f"meds_plugin: interrupted: continue with 'resume={folder}'"]
    assert saved_step(folder) > 0


def test_the_other_commands_end_alike(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    assert run_command("predict", stop, []) == 130
    assert capsys.readouterr().err == "meds_plugin: interrupted: run the command again\n"


# Damaged checkpoints.


@pytest.mark.parametrize("damage", ["empty", "cut", "one byte", "text", "another file of torch"])
def test_a_damaged_checkpoint_is_told_and_may_be_removed(
    command: Main, tmp_path: Path, whole: Path, damage: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "metrics.json").unlink()
    file = folder / "model.ckpt"
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    if damage == "another file of torch":
        torch.save({"state_dict": {}}, file)
    else:
        damaged = {
            "empty": b"",
            "cut": content[:middle],
            "one byte": content[:middle] + flipped + content[middle + 1 :],
            "text": b"no checkpoint",
        }
        file.write_bytes(damaged[damage])
    status, line = command(f"resume={folder}")
    assert status == 2
    assert line.startswith(f"meds_plugin: {file} is damaged, or not of this run: replace it")
    if damage == "empty":
        file.unlink()
        status, _, err = run(f"resume={folder}")
        assert status == 0, err
        assert same(folder, whole)


# A disk that is full, or may not be written any more.


@pytest.mark.parametrize(
    ("name", "nth", "number", "remedy"),
    [
        ("model.ckpt", 2, errno.ENOSPC, "make room, then continue with"),
        ("manifest.csv", 1, errno.EROFS, "make it writable, then continue with"),
        ("ranking.csv", 1, errno.EACCES, "make it writable, then continue with"),
        ("metrics.json", 1, errno.ENOSPC, "make room, then continue with"),
        ("config.yaml", 1, errno.ENOSPC, "give another folder with hydra.run.dir=DIR"),
    ],
)
def test_what_was_written_stays_and_the_run_continues_once_there_is_room(
    command: Main,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whole: Path,
    name: str,
    nth: int,
    number: int,
    remedy: str,
) -> None:
    folder = tmp_path / "run"
    written: list[Path] = []

    def fail(path: Path) -> None:
        if path.name.startswith(f".{name}."):
            written.append(path)
            if len(written) >= nth:
                with path.open("wb") as file:
                    file.write(b"half of it")
                raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        for method in ("write_bytes", "write_text"):
            patched.setattr(Path, method, _after(fail, getattr(Path, method)))
        status, line = command(*QUIET, f"hydra.run.dir={folder}")
    assert status == 2
    assert line.startswith(f"meds_plugin: {written[-1]} cannot be written ({os.strerror(number)})")
    assert remedy in line
    assert not temporary_files(folder)
    if name == "model.ckpt":
        assert saved_step(folder) == 0  # the first is whole
    if name == "config.yaml":
        assert "resume" not in line
        return
    assert f"resume={folder}" in line
    status, _, err = run(f"resume={folder}")
    assert status == 0, err
    assert same(folder, whole)


def _after(before: Callable[[Path], None], method: Callable[..., int]) -> Callable[..., int]:
    def call(self: Path, *arguments: Any, **keywords: Any) -> int:
        before(self)
        return method(self, *arguments, **keywords)

    return call


def test_other_errors_of_files_are_not_about_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/dev/camera")

    for name in ("MEDS_STARTED", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("meds_plugin.job.run", fail)
    monkeypatch.setattr(sys, "argv", ["meds_plugin.run", f"hydra.run.dir={tmp_path}"])
    with pytest.raises(PermissionError, match="/dev/camera"):
        main()


def test_a_sweep_on_a_full_disk(
    command: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("meds_plugin.sweeps.sweep.write_job", fail)
    status, line = command("-m", "noise=0,0.1", f"hydra.sweep.dir={tmp_path}")
    assert status == 2
    assert line.endswith(f"make room, then continue with resume={tmp_path}")


@pytest.mark.parametrize(("file", "remedy"), [("sweep.json", "command again"), ("j/job.json", "j")])
def test_a_damaged_record_of_a_sweep(command: Main, tmp_path: Path, file: str, remedy: str) -> None:
    record = {"arguments": ["-m", "noise=0", "hydra.sweep.subdir=j"], "cwd": str(tmp_path)}
    (tmp_path / "j").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    (tmp_path / file).write_text("{")
    status, line = command(f"resume={tmp_path}")
    assert status == 2
    assert str(tmp_path / file) in line
    assert remedy in line


# Limits of the trainer.


@pytest.mark.parametrize("limit", ["max_steps=14", "max_epochs=3", "fast_dev_run=true"])
def test_a_run_cut_short_says_so_everywhere(tmp_path: Path, whole: Path, limit: str) -> None:
    folder = tmp_path / "run"
    status, out, err = run(*QUIET, f"trainer.{limit}", f"hydra.run.dir={folder}")
    assert status == 0, err
    metrics = json.loads((folder / "metrics.json").read_text())
    done, total = (metrics["protocol"][key] for key in ("steps_done", "total_steps"))
    said = f"training ended after {done} of {total} steps"
    assert done < total
    assert metrics["cut_short"].startswith(said)
    again = f"resume={folder} trainer.{limit.partition('=')[0]}=null"
    (line,) = [line for line in out.splitlines() if said in line]
    assert line.startswith("CUT SHORT: ")
    assert line.endswith(again)
    assert said not in err
    assert said in (folder / "review.html").read_text()
    assert load(folder).cut_short == metrics["cut_short"]
    status, out, err = run(*again.split())
    assert (status, "CUT SHORT" in out) == (0, False), err
    assert load(folder).cut_short is None
    assert same(folder, whole)
