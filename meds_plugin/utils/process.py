"""The rank of a process before a job's processes are connected."""

from __future__ import annotations

import os

__all__ = ["launched_rank"]

# At least one is not 0 in every process but the first.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


def launched_rank() -> int:
    """Return the rank that the launcher has assigned to this process: 0 for the job's first."""
    given = (os.environ.get(name, "0") for name in _RANKS)
    return next((int(rank) for rank in given if rank != "0"), 0)
