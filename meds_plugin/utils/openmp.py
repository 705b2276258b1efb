"""How long an idle thread of torch keeps its core busy."""

from __future__ import annotations

import os

__all__ = ["give_way"]

# Either of them means that the user has decided.
_GIVEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_TURNS = "20000"  # GNU OpenMP, which torch and faiss bring, turns 300 000 times by default


def give_way() -> None:
    """Let threads that wait for work soon free their cores for other programs.

    By default they turn idly for a while, which beside another program makes a run take twice as
    long or more: its threads wait for one that has no core. Must be called before anything imports
    torch or faiss, whose OpenMP reads the environment once, and has no effect on other builds'
    OpenMP. Other processes that this one starts take it over.
    """
    if not any(name in os.environ for name in _GIVEN):
        os.environ["GOMP_SPINCOUNT"] = _TURNS
