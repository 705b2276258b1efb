"""Limits how long idle threads of torch and faiss occupy their cores."""

from __future__ import annotations

import os

__all__ = ["limit_spinning"]

# If one of these is set, the user has decided.
_GIVEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_SPINS = "20000"  # GNU OpenMP, which torch and faiss use, spins 300 000 times by default


def limit_spinning() -> None:
    """Let threads that wait for work soon free their cores for other programs.

    By default they spin for a while, which slows down a run that shares the machine: its threads
    wait for one that has no core. Call this before torch or faiss is imported, whose OpenMP reads
    the environment once. Child processes inherit the setting.
    """
    if not any(name in os.environ for name in _GIVEN):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
