"""A process of a distributed job before it is connected with the others.

Ranks are started by Lightning (from the first one), torchrun or SLURM. Nothing heavy is imported
here: the command line answers wrong input at once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import datetime, timedelta
from typing import Any

from meds_plugin.utils.process import launched_rank

__all__ = ["follow_parent", "rank_options", "started"]

_LIGHTNING = "hydra.job.name=train_ddp_process_"  # what Lightning adds to the command line
_STORE_KEY = "meds_plugin/started"
_TIMEOUT = timedelta(minutes=5)

_stores: list[Any] = []


def started() -> str:
    """Return the default name of the run's folder, the same on all ranks.

    It is the time of the start; under torchrun, that of the first rank; if SLURM runs several
    processes, the job's number.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        from torch.distributed.rendezvous import rendezvous

        store, rank, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        _stores.append(store)  # stays open, because other ranks may read from the first one's
        if rank == 0:
            store.set(_STORE_KEY, _now())
        return str(store.get(_STORE_KEY).decode())
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return f"slurm/{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_STEP_ID', '0')}"
    return _now()


def rank_options() -> list[str]:
    """Return Hydra's options for a rank, but the first, that torchrun or SLURM started."""
    rank = launched_rank()
    if rank == 0 or _started_by_lightning():
        return []
    return [f"hydra.job.name=rank_{rank}", "hydra.output_subdir=null"]


def follow_parent() -> None:
    """End a rank that Lightning started together with the first one, its parent.

    Without this, it would wait for minutes until the ranks are connected (see `fail_fast`).
    """
    if not _started_by_lightning():
        return
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True, name="follow-parent").start()


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d/%H-%M-%S")


def _started_by_lightning() -> bool:
    return any(argument.startswith(_LIGHTNING) for argument in sys.argv)
