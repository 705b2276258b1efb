"""The main job: ``python -m meds_plugin.run backbone=dinomaly noise=0.4``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from meds_plugin.config.location import conf_dir
from meds_plugin.config.registry import GENERIC, register_detectors
from meds_plugin.distributed.launch import follow_parent, rank_options, started
from meds_plugin.sweeps.sweep import Sweep, arguments_of, current, end_with_the_sweep
from meds_plugin.utils.errors import UserError, print_error
from meds_plugin.utils.openmp import limit_spinning
from meds_plugin.utils.process import launched_rank

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["config_options", "main"]

# What shells report of a program that was interrupted, and of one that was told to end.
_SIGINT, _SIGTERM = 128 + 2, 128 + 15
_SWEEP = {"-m", "--multirun"}


@dataclass
class _Outcome:
    """What Hydra's caller does not get to know otherwise."""

    started: bool = False  # Hydra has come as far as our own code
    refusal: UserError | None = None  # raised through Hydra, it would be printed there, too
    status: int = 0  # exit status


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    limit_spinning()
    follow_parent()
    if "MEDS_STARTED" not in os.environ:
        os.environ["MEDS_STARTED"] = started()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach this function instead of Hydra's printer
    end_with_the_sweep()
    _resume_in_place()
    sys.argv += rank_options()
    _refuse_ranks_of_a_sweep()
    options = config_options(sys.argv[1:])
    sweep = current(options)
    register_detectors([conf_dir(), *(option.rpartition("=")[2] for option in options)])
    outcome = _Outcome()

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def start(config: DictConfig) -> None:
        outcome.started = True
        _start(config, outcome, sweep)

    try:
        start()
    except KeyboardInterrupt:
        if sweep.folder is None:
            raise
        sweep.report()
        sys.exit(_SIGINT)
    except (HydraException, OmegaConfBaseException, UserError, OSError, RuntimeError) as error:
        line = _explain(error, started=outcome.started, sweeping=sweep.folder is not None)
        if line is None:
            raise
        _refuse(line)
    if outcome.refusal is not None:
        _refuse(str(outcome.refusal))
    if status := outcome.status or sweep.report():
        sys.exit(status)


def _refuse_ranks_of_a_sweep() -> None:
    rank = "LOCAL_RANK" in os.environ or os.environ.get("SLURM_PROCID", "0") != "0"
    if rank and _SWEEP & set(sys.argv):
        _refuse("start a sweep once, without torchrun or srun: each of its jobs starts its ranks")


def _start(config: DictConfig, outcome: _Outcome, sweep: Sweep) -> None:
    """Do what Hydra calls us for: a run, the rest of one, or a job of a sweep."""
    context = HydraConfig.get()
    folder, overrides = Path(context.runtime.output_dir), list(context.overrides.task)
    if context.mode == RunMode.MULTIRUN:
        sweep.run_job(config, context)
        return
    # Heavy imports come late: a wrong override is answered at once.
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from meds_plugin.distributed.fail_fast import end_ranks
    from meds_plugin.job import resume, run

    try:
        if config.resume is not None:
            resume(Path(config.resume), overrides)
        else:
            run(config, folder)
    except UserError as error:
        end_ranks(str(error), status=2)
        outcome.refusal = error
    except SIGTERMException:  # left alone, it ends the process with status 0
        end_ranks("told to end (SIGTERM)", status=_SIGTERM)
        outcome.status = _SIGTERM


def _explain(error: Exception, *, started: bool, sweeping: bool) -> str | None:
    """Return the line for what Hydra does not like; ``None`` if it is not the user's doing."""
    if isinstance(error, MissingConfigException):
        return _choices(error)
    if isinstance(error, (HydraException, OmegaConfBaseException, UserError)):
        return str(error)
    if isinstance(error, RuntimeError) and "Unknown plugin class" in str(error):
        return f'{error}: pip install "meds-plugin[launchers]"'
    if isinstance(error, OSError) and not started:
        key = "hydra.sweep.dir" if sweeping else "hydra.run.dir"
        return f"the run folder cannot be written ({error}): give another one with {key}=DIR"
    return None


def _refuse(message: str) -> None:
    print_error(message, rank=launched_rank() or None)
    sys.exit(2)


def _choices(error: MissingConfigException) -> str:
    """Return what to choose from where ``GROUP=NAME`` names nothing."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    # `_base` and the like are parts of choices.
    options = [each for each in error.options or () if each != GENERIC and each[0] != "_"]
    if not group or not options:
        return str(error)
    return f"{group}={name} is not there: choose from {', '.join(options)}"


def _resume_in_place() -> None:
    """Let Hydra write into the folder of the run that is resumed, not into a new one.

    For a sweep's folder, do what its own command line says.
    """
    given = [arg.removeprefix("resume=").strip("'\"") for arg in sys.argv if "resume=" in arg[:7]]
    if not given or not Path(given[0]).is_dir():
        return
    folder = Path(given[0]).resolve()
    if begun := arguments_of(folder):
        others = [arg for arg in sys.argv[1:] if arg not in _SWEEP and "resume=" not in arg[:7]]
        if others:
            _refuse(f"resume takes everything from the sweep: leave out {' '.join(others)}")
        sys.argv[1:] = begun
    elif not any("hydra.run.dir=" in arg for arg in sys.argv):
        quoted = str(folder).replace("'", "\\'")
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


if __name__ == "__main__":
    main()
