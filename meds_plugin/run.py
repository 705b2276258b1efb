"""The main job: ``python -m meds_plugin.run backbone=dinomaly noise=0.4``."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from meds_plugin.config.location import conf_dir
from meds_plugin.config.mistakes import check_sections, explain
from meds_plugin.config.overrides import (
    config_options,
    is_sweep,
    prepare_arguments,
    quote,
    value_of,
)
from meds_plugin.config.registry import register_detectors
from meds_plugin.distributed.launch import follow_parent, rank_options, started
from meds_plugin.sweeps.sweep import Sweep, arguments_of, current, end_with_the_sweep
from meds_plugin.utils.errors import UserError, print_error
from meds_plugin.utils.openmp import limit_spinning
from meds_plugin.utils.process import launched_rank
from meds_plugin.utils.stopping import Stopped, ignore_signals, stop_requested, stoppable

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

__all__ = ["main"]

_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_FIRST_RANKS_TURN = 3.0  # seconds in which the first rank ends the others


class _Ending(NamedTuple):
    """Exit status, and the line that explains it."""

    status: int
    line: str = ""


class _Ended(BaseException):  # Hydra catches and prints an Exception
    """Carries the ending of a run through Hydra."""

    def __init__(self, ending: _Ending) -> None:
        super().__init__(ending)
        self.ending = ending


@dataclass
class _Progress:
    """The command line's progress, on which the meaning of an error depends."""

    sweep: Sweep = field(default_factory=Sweep)
    folder: Path | None = None  # the run's, once it is known
    process: int = field(default_factory=os.getpid)


def main() -> None:
    """Run the command line; on failure, print one line and exit with status 2, 130 or 143."""
    with stoppable():
        ending = _run()
    if ending is None:
        return
    if ending.line and not (ending.status > 2 and launched_rank()):  # the first rank says it
        print_error(ending.line, rank=launched_rank() or None)
    sys.exit(ending.status)


def _run() -> _Ending | None:
    progress = _Progress()
    try:
        _call_hydra(progress)
    except _Ended as ended:
        return ended.ending
    except BaseException as error:
        if ending := _ending(error, progress):
            return ending
        raise
    return None


def _call_hydra(progress: _Progress) -> None:
    limit_spinning()
    follow_parent()
    if "MEDS_STARTED" not in os.environ:
        os.environ["MEDS_STARTED"] = started()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing them
    logging.raiseExceptions = False  # a full disk is reported once, not by each line of run.log
    end_with_the_sweep()
    arguments = prepare_arguments(sys.argv[1:])
    resumed = value_of(arguments, "resume")
    if resumed is not None and Path(resumed).is_dir():
        progress.folder = Path(resumed).resolve()
        arguments = _resuming(progress.folder, arguments)
    arguments += rank_options()
    rank = "LOCAL_RANK" in os.environ or os.environ.get("SLURM_PROCID", "0") != "0"
    if rank and is_sweep(arguments):
        msg = "start a sweep without torchrun or srun: each job starts its own ranks"
        raise UserError(msg)
    sys.argv[1:] = arguments
    options = config_options(arguments)
    progress.sweep = current(options)
    register_detectors([conf_dir(), *(option.rpartition("=")[2] for option in options)])

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def start(config: DictConfig) -> None:
        _start(config, progress)

    start()
    if status := progress.sweep.report():
        again = f"{_resume(progress.sweep.folder)} runs what is missing, and nothing else"
        raise _Ended(_Ending(status, again))


def _resuming(folder: Path, arguments: list[str]) -> list[str]:
    """Return arguments that make Hydra write into the folder to resume instead of a new one.

    For a sweep's folder, these are the sweep's own arguments.
    """
    if begun := arguments_of(folder):
        others = [a for a in arguments if not is_sweep([a]) and not a.startswith("resume=")]
        if others:
            msg = f"resume takes everything from the sweep: leave out {' '.join(others)}"
            raise UserError(msg)
        return begun
    if value_of(arguments, "hydra.run.dir") is None:
        where = f"hydra.run.dir={quote(str(folder))}"
        return [*arguments, where, "hydra.output_subdir=null"]
    return arguments


def _start(config: DictConfig, progress: _Progress) -> None:
    """Do what Hydra calls for: a run, the rest of one, or a job of a sweep."""
    try:
        check_sections(config)
        context = HydraConfig.get()
        if context.mode == RunMode.MULTIRUN:
            progress.sweep.run_job(config, context)
        else:
            _run_one(config, context, progress)
    except BaseException as error:
        ending = _ending(error, progress)
        if ending is None or os.getpid() != progress.process:  # the process is a launcher's
            raise
        raise _Ended(ending) from error


def _run_one(config: DictConfig, context: HydraConf, progress: _Progress) -> None:
    resuming = config.resume is not None
    folder = Path(config.resume if resuming else context.runtime.output_dir).absolute()
    progress.folder = folder
    # Heavy imports come late: a wrong override is answered at once.
    from meds_plugin.distributed.fail_fast import end_ranks
    from meds_plugin.job import resume, run

    try:
        if resuming:
            resume(folder, list(context.overrides.task))
        else:
            run(config, folder)
    except BaseException as error:
        if ending := _ending(error, progress):
            clear_frames(error.__traceback__)  # ends the lines of progress bars
            if launched_rank() and ending.status > 2:
                time.sleep(_FIRST_RANKS_TURN)  # it most likely received the signal, too
            end_ranks(ending.line, status=ending.status)
        raise


def _ending(error: BaseException, progress: _Progress) -> _Ending | None:
    """Return how an error ends the process; ``None`` if it is unexpected."""
    where = progress.sweep.folder or progress.folder
    if isinstance(error, Stopped) or stop_requested():
        # Other errors follow from the signal, such as from data loaders whose workers ended.
        stopped = error if isinstance(error, Stopped) else Stopped(stop_requested())
        ignore_signals()
        progress.sweep.report()
        how = f"continue with {_resume(where)}" if _resumable(where) else "run the command again"
        return _Ending(stopped.status, f"{stopped}: {how}")
    if isinstance(error, UserError):
        return _Ending(2, str(error))
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _Ending(2, explain(error, sys.argv[1:]))
    if isinstance(error, YAMLError):
        return _Ending(2, f"a configuration file is not valid YAML: {error}")
    if isinstance(error, RuntimeError) and "Unknown plugin class" in str(error):
        return _Ending(2, f'{error}: pip install "meds-plugin[launchers]"')
    if isinstance(error, BrokenPipeError) and where is None:  # --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _Ending(128 + 13)
    if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):
        error = error.__cause__  # from opening Hydra's log file
    if isinstance(error, OSError):
        line = _unwritable(error, where, sweeping=progress.sweep.folder is not None)
        return None if line is None else _Ending(2, line)
    return None


def _unwritable(error: OSError, where: Path | None, *, sweeping: bool) -> str | None:
    """Return the line for a folder that cannot be written; ``None`` for other errors."""
    names = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    inside = [name for name in names if where and Path(name).is_relative_to(where)]
    no_room = error.errno in _NO_ROOM
    if where and not (inside or no_room or error.errno == errno.EROFS):
        return None
    place = (inside or names or [str(where or "the run folder")])[0]
    remedy = f"give another folder with {'hydra.sweep.dir' if sweeping else 'hydra.run.dir'}=DIR"
    if _resumable(where):
        remedy = (
            f"{'make room' if no_room else 'make it writable'}, then continue with {_resume(where)}"
        )
    return f"{place} cannot be written ({error.strerror}): {remedy}"


def _resumable(folder: Path | None) -> bool:
    """Whether a folder holds a run or a sweep."""
    files = ("config.yaml", "sweep.json")
    return folder is not None and any((folder / name).is_file() for name in files)


def _resume(folder: Path | None) -> str:
    return shlex.quote(f"resume={folder}")


if __name__ == "__main__":
    main()
