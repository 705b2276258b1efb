"""Sweeps: each job in a process of its own, whichever launcher starts it.

Distributed jobs leave environment variables and process groups behind that would affect the next
job in the same process. So the function that Hydra calls for a job, here or on another machine,
only supervises it: it runs the job as a single run, in its own process and session, and records how
it ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf, open_dict, read_write

from meds_plugin.config.flatten import changes, flatten
from meds_plugin.config.overrides import quote, requote
from meds_plugin.config.paths import anchor_paths
from meds_plugin.runs.read import is_finished
from meds_plugin.sweeps.folder import (
    Job,
    find_jobs,
    job_name,
    locked,
    place,
    read_job,
    write_job,
)
from meds_plugin.training.stages import RIVAL_METHODS
from meds_plugin.utils.atomic import write_json
from meds_plugin.utils.errors import UserError, print_error
from meds_plugin.utils.stopping import Stopped, stop_requested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.conf import HydraConf
    from omegaconf import DictConfig

__all__ = ["Sweep", "arguments_of", "current", "end_with_the_sweep", "sweep_of"]

log = logging.getLogger(__name__)

_RECORD = "sweep.json"  # the command line that started it
_SWEEP_DIR = "hydra.sweep.dir="
_JOB_VARIABLE = "MEDS_SWEEP_JOB"  # set in the processes of a job
_GRACE = 10.0  # seconds for a job to end after its current step
_LOG = "output.log"  # in a job's folder: what it printed
# Those of Hydra's settings that belong to the sweep, not to its jobs.
_SWEEP_SETTINGS = (
    "hydra.mode=",
    "hydra.run.",
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.output_subdir=",
)


class Sweep(Callback):
    """One start of a sweep; pickled into the processes that launch its jobs.

    Args:
        options: Hydra's options that say where configurations are, with their values.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.folder: Path | None = None  # known once Hydra has begun a sweep
        self._id = uuid4().hex
        self._options = list(options)
        self._process = os.getpid()
        self._cwd = Path.cwd()
        self._swept: set[str] = set()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Learn the sweep's folder and which settings distinguish its jobs."""
        del kwargs
        hydra = config.hydra
        params = (hydra.sweeper.get("params") or {}).items()
        given = [*(f"{key}={value}" for key, value in params), *hydra.overrides.task]
        overrides = OverridesParser.create().parse_overrides(given)
        self._swept = {o.get_key_element().lstrip("+") for o in overrides if o.is_sweep_override()}
        own = [o for o in hydra.overrides.hydra if not o.startswith(("hydra.mode=", _SWEEP_DIR))]
        # Hydra accepts options only before the overrides.
        arguments = ["-m", *self._options, *hydra.overrides.task, *own]
        with read_write(config), open_dict(config):
            # A job's process writes its configuration itself, into the job's folder.
            hydra.overrides.hydra.append("hydra.output_subdir=null")
        self.folder = Path(str(hydra.sweep.dir)).absolute()
        with contextlib.suppress(OSError):  # Hydra, which writes there next, reports it
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _RECORD, {"arguments": arguments, "cwd": str(self._cwd)})

    def run_job(self, config: DictConfig, hydra: HydraConf) -> None:
        """Run a job, resume it, or skip a finished one, and record how it ended.

        Args:
            config: The job's configuration.
            hydra: Hydra's configuration for the job.

        Raises:
            UserError: If the sweep's configuration lacks `current` as a callback.
        """
        if self.folder is None:
            msg = "the sweep's configuration has no hydra.callbacks.sweep"
            raise UserError(msg)
        anchor_paths(config)
        plain = OmegaConf.to_container(config, resolve=True)
        settings = json.loads(json.dumps(plain, default=str))
        overrides = list(hydra.overrides.task)
        if (
            settings["method"] in RIVAL_METHODS
        ):  # the detector makes no difference: one run serves all
            del settings["backbone"], settings["evaluation"]["mask_rule"]
            overrides = [o for o in overrides if not o.startswith("backbone=")]
        subdir = str(hydra.sweep.subdir)
        name = job_name(overrides, self._swept) if subdir == "." else subdir
        folder = place(self.folder, name, settings)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            before = read_job(folder) or Job(overrides, settings, self._id)
            differences = changes(flatten(before.settings), flatten(settings))
            if differences:
                reason = (
                    f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                    "give those again, or another hydra.sweep.dir"
                )
                self._end(folder, before, status=2, reason=reason, seconds=before.seconds)
            elif is_finished(folder):
                log.info("%s: finished before, skipped", folder.name)
                write_job(folder, before, sweep=self._id, status=0, reason="")
            else:
                self._run(folder, before, hydra)

    def report(self) -> int:
        """Print which jobs failed, and return the sweep's exit status.

        Returns:
            0 if none failed, 2 if all that failed had wrong input, otherwise 1.
        """
        if self.folder is None:
            return 0
        jobs = [(folder, job) for folder, job in find_jobs(self.folder) if job.sweep == self._id]
        failed = [(folder, job) for folder, job in jobs if job.status != 0]
        cut = [folder for folder, job in jobs if job.status == 0 and not is_finished(folder)]
        finished = len(jobs) - len(failed) - len(cut)
        # Those that an interruption kept from starting have no folder yet.
        begun = " started" if any(job.status is None for _, job in failed) else ""
        print(f"{finished} of {len(jobs)} jobs{begun} are finished: {self.folder}")
        for folder, job in failed:
            end = "was stopped" if job.status is None else f"failed: {job.reason}"
            print_error(f"job {folder.name} {end}")
        for folder in cut:
            print_error(f"job {folder.name} was cut short by a limit of the trainer")
        if not failed:
            return 0
        return 2 if all(job.status == 2 for _, job in failed) else 1

    def _run(self, folder: Path, before: Job, hydra: HydraConf) -> None:
        quoted = quote(str(folder))
        if (folder / "config.yaml").is_file():
            log.info("%s: continues where it stopped", folder.name)
            task = [f"resume={quoted}", "hydra.output_subdir=null"]
        else:
            log.info("%s: starts", folder.name)
            own = [o for o in hydra.overrides.hydra if not o.startswith(_SWEEP_SETTINGS)]
            task = [*map(requote, hydra.overrides.task), *own]
        command = [
            *(sys.executable, "-m", "meds_plugin.run"),
            *(*self._options, *task, f"hydra.run.dir={quoted}"),
        ]
        write_job(folder, before, sweep=self._id, status=None, reason="")
        output = folder / _LOG
        begin = output.stat().st_size if output.exists() else 0
        start = time.monotonic()
        status = self._supervise(command, output)
        seconds = round(time.monotonic() - start, 3)
        reason = "" if status == 0 else _reason(output, begin, status)
        self._end(folder, before, status=status, reason=reason, seconds=seconds)

    def _end(self, folder: Path, job: Job, *, status: int, reason: str, seconds: float) -> None:
        """Record and log how a job ended; a refused one keeps its settings."""
        status = status if status >= 0 else 1  # negative: ended by a signal
        write_job(folder, job, sweep=self._id, status=status, reason=reason, seconds=seconds)
        if status:
            log.error("%s: failed with status %d: %s", folder.name, status, reason)
        else:
            log.info("%s: done in %.0f s", folder.name, seconds)

    def _supervise(self, command: list[str], output: Path) -> int:
        """Run a command in a session of its own, which ends when this process does."""
        environment = {**os.environ, _JOB_VARIABLE: "1"}
        if "SLURM_NTASKS" in environment:
            # Makes Lightning start the job's ranks instead of taking SLURM's tasks for them.
            environment["SLURM_JOB_NAME"] = "interactive"
        with (
            output.open("ab") as file,
            subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.PIPE,  # closed when this process ends, however that happens
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            try:
                return self._wait(process)
            except Stopped:
                process.terminate()  # the job saves what it has done
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
                raise
            finally:
                _kill(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a job's end.

        Raises:
            KeyboardInterrupt: In a launcher's worker, if the sweep's process has ended.
            Stopped: If this process was asked to end.
        """
        parent = None if os.getpid() == self._process else os.getppid()
        while process.poll() is None:
            if parent is not None and os.getppid() != parent:
                raise KeyboardInterrupt
            if number := stop_requested():  # what the signal raised may be lost in a destructor
                raise Stopped(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        return process.returncode


_current = Sweep()


def current(options: Sequence[str] | None = None) -> Sweep:
    """Return this process's sweep; Hydra calls this to construct its callback.

    Args:
        options: Begin another sweep with these options (see `Sweep`).
    """
    global _current
    if options is not None:
        _current = Sweep(options)
    return _current


def arguments_of(folder: Path) -> list[str] | None:
    """Return the command line that continues a sweep, and change to its working directory.

    Args:
        folder: The sweep's folder; the result is ``None`` if it is not one.

    Raises:
        UserError: If its record is damaged, or the working directory is gone.
    """
    file = folder / _RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        os.chdir(record["cwd"])
        return [*record["arguments"], f"{_SWEEP_DIR}{quote(str(folder.absolute()))}"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"{file} cannot be used ({type(error).__name__}: {error}): give the sweep's own "
            f"command again, with {_SWEEP_DIR}{folder}"
        )
        raise UserError(msg) from error


def sweep_of(folder: Path) -> Path | None:
    """Return the folder of the sweep that this process works for, if it is a job's."""
    return folder.parent if _JOB_VARIABLE in os.environ else None


def end_with_the_sweep() -> None:
    """In a process of a job: end all of the job's processes when its supervisor ends."""
    if _JOB_VARIABLE in os.environ:
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of a job: its process, ranks and data loaders."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    # Nothing is left; on macOS, zombies at most.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(output: Path, begin: int, status: int) -> str:
    """Return why a job failed: the last line it printed, or the signal that ended it."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    with output.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    last = said[-1].removeprefix("meds_plugin: ") if said else "without a message"
    return last if status == 2 else f"{last} ({output})"
