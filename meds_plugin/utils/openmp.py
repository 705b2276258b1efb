"""How long an idle thread of torch keeps its core busy."""

from __future__ import annotations

import os

__all__ = ["limit_spinning"]

# Either of them means that the user has decided.
_GIVEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_SPINS = "20000"  # GNU OpenMP, which torch and faiss bring, spins 300 000 times by default


def limit_spinning() -> None:
    """Let threads that wait for work soon free their cores for other programs.

    By default they spin for a while, which slows a run down beside another program: its threads
    wait for one that has no core. Call it before anything imports torch or faiss, whose OpenMP
    reads the environment once. Processes that this one starts inherit it.
    """
    if not any(name in os.environ for name in _GIVEN):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
