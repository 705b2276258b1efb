"""The main job: ``python -m meds_plugin.run backbone=dinomaly noise=0.4``."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from meds_plugin.conf_dir import conf_dir
from meds_plugin.errors import UserError
from meds_plugin.launch import (
    follow_parent,
    launched_rank,
    rank_options,
    started,
    under_torchrun,
)
from meds_plugin.registry import GENERIC, register_detectors

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["config_options", "main"]

log = logging.getLogger(__name__)

_SIGPIPE = 128 + 13  # what shells report of a program that wrote into a closed pipe
_SIGTERM = 128 + 15  # and of one that was told to end


@dataclass
class _Outcome:
    """What Hydra's caller does not get to know otherwise."""

    started: bool = False  # Hydra has come as far as our own code
    # Raised through Hydra, they would be printed there, too.
    refusal: UserError | None = None
    broken_pipe: BrokenPipeError | None = None
    status: int = 0  # exit status; the worst of a sweep's jobs


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong.

    Where nobody reads the output any more (``| head``), it ends quietly.
    """
    try:
        _main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _unread():
            raise  # some other pipe
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_SIGPIPE)


def _unread() -> bool:
    """Whether nobody reads our output any more."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False


def _main() -> None:
    follow_parent()
    if "MEDS_STARTED" not in os.environ:
        os.environ["MEDS_STARTED"] = started()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach this function instead of Hydra's printer
    _resume_in_place()
    sys.argv += rank_options()
    given = (option.rpartition("=")[2] for option in config_options(sys.argv[1:]))
    register_detectors([conf_dir(), *given])
    outcome = _Outcome()

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def start(config: DictConfig) -> None:
        outcome.started = True
        _start(config, outcome)

    try:
        start()
    except MissingConfigException as error:
        _refuse(_choices(error))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(str(error))
    except OSError as error:
        if outcome.started:
            raise
        _refuse(
            f"the run folder cannot be written ({error}): give another one with hydra.run.dir=DIR"
        )
    if outcome.broken_pipe is not None:
        raise outcome.broken_pipe
    if outcome.refusal is not None:
        _refuse(str(outcome.refusal))
    if outcome.status:
        sys.exit(outcome.status)


def _start(config: DictConfig, outcome: _Outcome) -> None:
    """Do what Hydra calls us for: a run, the rest of one, or a job of a sweep."""
    context = HydraConfig.get()
    folder, overrides = Path(context.runtime.output_dir), list(context.overrides.task)
    if context.mode == RunMode.MULTIRUN and under_torchrun():
        msg = "a sweep starts the processes of its jobs itself: take trainer.devices=, not torchrun"
        outcome.refusal = UserError(msg)
        return
    if context.mode == RunMode.MULTIRUN and "LOCAL_RANK" not in os.environ:
        outcome.status = max(outcome.status, _run_apart(overrides, folder))
        return
    # Heavy imports come late: a wrong override is answered at once.
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from meds_plugin.job import resume, run
    from meds_plugin.watch import end_ranks

    try:
        if config.resume is not None:
            resume(Path(config.resume), overrides)
        else:
            run(config, folder)
    except UserError as error:
        end_ranks(_one_line(error), status=2)
        outcome.refusal = error
    except SIGTERMException:  # left alone, it ends the process with status 0
        end_ranks("told to end (SIGTERM)", status=_SIGTERM)
        outcome.status = _SIGTERM
    except BrokenPipeError as error:
        outcome.broken_pipe = error


def _refuse(message: str) -> None:
    rank = launched_rank()
    where = f" (rank {rank})" if rank else ""
    print(f"meds_plugin{where}: {_one_line(message)}", file=sys.stderr)
    sys.exit(2)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _choices(error: MissingConfigException) -> str:
    """Return what to choose from where ``GROUP=NAME`` names nothing."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or () if option != GENERIC]
    if not group or not options:
        return str(error)
    return f"{group}={name} is not there: choose from {', '.join(options)}"


def _resume_in_place() -> None:
    """Let Hydra write into the folder of the run that is resumed, not into a new one."""
    given = [arg.removeprefix("resume=").strip("'\"") for arg in sys.argv if "resume=" in arg[:7]]
    if given and Path(given[0]).is_dir() and not any("hydra.run.dir=" in arg for arg in sys.argv):
        quoted = str(Path(given[0]).resolve()).replace("'", "\\'")
        sys.argv += [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def config_options(arguments: list[str]) -> list[str]:
    """Return Hydra's options that say where configurations are, with their values."""
    names = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
    found: list[str] = []
    for place, argument in enumerate(arguments):
        if argument in names:
            found += arguments[place : place + 2]
        elif argument.startswith(tuple(f"{name}=" for name in names)):
            found.append(argument)
    return found


def _run_apart(overrides: list[str], folder: Path) -> int:
    """Run one job of a sweep in a process of its own and return its exit status.

    Distributed jobs leave environment variables and process groups behind that would change the
    next job in the same process.
    """
    quoted = str(folder.resolve()).replace("'", "\\'")
    job = [*config_options(sys.argv[1:]), *overrides, f"hydra.run.dir='{quoted}'"]
    command = [sys.executable, "-m", "meds_plugin.run", *job]
    log.info("%s -> %s", " ".join(overrides) or "(defaults)", folder)
    status = subprocess.run(command, check=False).returncode  # noqa: S603 - our own module
    if status:
        log.error("job failed with status %d: %s", status, " ".join(overrides))
    return status if status >= 0 else 1  # negative: ended by a signal


if __name__ == "__main__":
    main()
