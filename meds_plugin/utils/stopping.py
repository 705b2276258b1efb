"""Ends a process on Ctrl-C or SIGTERM, at a point where no work is lost."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meds_plugin.utils.process import launched_rank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = [
    "Stopped",
    "catch_signals",
    "defer_stop",
    "ignore_signals",
    "stop_requested",
    "stoppable",
]

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to end"}

_process: int | None = None  # the one that catches signals; processes forked from it do not
_requested = 0  # the first signal received
_deferred = False


class Stopped(BaseException):
    """Raised when a signal asks this process to end.

    Not a `KeyboardInterrupt`, on which Lightning ends the process with status 1.

    Attributes:
        status: The exit status that shells report for the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number)])
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Make signals raise `Stopped` inside the block.

    Previous handlers are restored afterwards, unless `ignore_signals` was called.
    """
    global _process, _requested, _deferred
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _WORDS}
    _process, _requested, _deferred = os.getpid(), 0, False
    catch_signals()
    try:
        yield
    finally:
        if _process is not None:
            for number, handler in before.items():
                signal.signal(number, handler)
        _process = None


def catch_signals() -> None:
    """Install the handlers again, inside `stoppable`: other code may have replaced them.

    Signals that were ignored when the process started, as after a shell's ``&``, stay ignored.
    Ctrl-C reaches all ranks of a distributed job; only the first acts on it, and ends the others.
    """
    if _process != os.getpid():
        return
    for number in _WORDS:
        if number == signal.SIGINT and launched_rank() > 0:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def ignore_signals() -> None:
    """Ignore further signals because the process is about to end."""
    global _process
    _process = None
    for number in _WORDS:
        signal.signal(number, signal.SIG_IGN)


def defer_stop(*, deferred: bool) -> None:
    """Set whether the first signal is only recorded, for `stop_requested`, instead of raised."""
    global _deferred
    _deferred = deferred


def stop_requested() -> int:
    """Return the signal that asked this process to end; 0 if there was none."""
    return _requested


def _stop(number: int, frame: FrameType | None) -> None:
    global _requested
    del frame
    if os.getpid() != _process:  # a data loader's worker, which ends with its parent
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    first = not _requested
    _requested = _requested or number
    if not (first and _deferred):
        raise Stopped(_requested)
