"""The rank of a process before a job's processes are connected."""

from __future__ import annotations

import os
import sys

__all__ = ["launched_rank", "peak_memory"]

# At least one is not 0 in every process but the first.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


def launched_rank() -> int:
    """Return the rank that the launcher has assigned to this process: 0 for the job's first."""
    given = (os.environ.get(name, "0") for name in _RANKS)
    return next((int(rank) for rank in given if rank != "0"), 0)


def peak_memory() -> float | None:
    """Return the most memory that this process has held so far, in GB; ``None`` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 1e9 if sys.platform == "darwin" else held / 1e6
