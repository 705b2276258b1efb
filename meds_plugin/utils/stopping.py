"""Ends a process that is interrupted (Ctrl-C) or told to end (SIGTERM), where nothing is lost."""

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

_process: int | None = None  # that catches signals; those forked from it do not
_requested = 0  # the first signal that came
_deferred = False


class Stopped(BaseException):
    """Raised where a signal asks this process to end.

    No `KeyboardInterrupt`: Lightning would end the process with status 1.

    Attributes:
        status: The exit status that shells report of such an end.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number)])
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Let signals raise `Stopped` inside the block.

    After it, they have their previous effect again, unless `ignore_signals` was called.
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
    """Inside `stoppable`, take the signals from whoever has taken them since.

    What the process was started to ignore, as by a shell's ``&``, it goes on to ignore. A Ctrl-C
    reaches all processes of a distributed job: the first one ends them.
    """
    if _process != os.getpid():
        return
    for number in _WORDS:
        if number == signal.SIGINT and launched_rank() > 0:
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def ignore_signals() -> None:
    """Let further signals have no effect: the process is about to end."""
    global _process
    _process = None
    for number in _WORDS:
        signal.signal(number, signal.SIG_IGN)


def defer_stop(*, deferred: bool) -> None:
    """Let the first signal only be noted from now on, or again end the process at once."""
    global _deferred
    _deferred = deferred


def stop_requested() -> int:
    """Return the signal that asked this process to end, 0 for none."""
    return _requested


def _stop(number: int, frame: FrameType | None) -> None:
    global _requested
    del frame
    if os.getpid() != _process:  # a loader's worker, which ends with its parent
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    first = not _requested
    _requested = _requested or number
    if not (first and _deferred):
        raise Stopped(_requested)
