"""Signals that end a process."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from meds_plugin.utils.stopping import Stopped, catch_signals, ignore_signals, stoppable

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def before() -> Iterator[list[object]]:
    """Start as from a terminal, and restore what the signals did."""
    found = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield [signal.getsignal(number) for number in SIGNALS]
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_within_the_block_only(
    number: signal.Signals, before: list[object]
) -> None:
    with pytest.raises(Stopped) as stopped, stoppable():
        signal.raise_signal(number)
    assert stopped.value.status == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_signals_are_taken_back_from_others() -> None:
    with stoppable():
        signal.signal(signal.SIGTERM, lambda *_: None)
        catch_signals()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
    catch_signals()  # without effect outside
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable():
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setenv("LOCAL_RANK", "1")  # the first rank ends the others
    with stoppable():
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_ends_ignores_further_signals() -> None:
    with stoppable():
        ignore_signals()
        for number in SIGNALS:
            signal.raise_signal(number)
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_ends_by_sigterm_only() -> None:
    with stoppable():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
