"""Progress bars for the long phases outside Lightning's training loop."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from meds_plugin.utils.process import launched_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["counter", "pace", "track"]

T = TypeVar("T")


def track(
    iterable: Iterable[T], *, description: str, total: int | None = None, enabled: bool = True
) -> Iterator[T]:
    """Yield the items behind a bar on standard error, which stays when it is full.

    Of the ranks of a distributed job, only the first shows one.

    Args:
        iterable: What to go through.
        description: The phase's name.
        total: Number of items, where the iterable does not tell.
        enabled: ``False`` shows nothing.
    """
    yield from tqdm(
        iterable,
        desc=description,
        total=total,
        disable=not enabled or launched_rank() > 0,
        dynamic_ncols=True,
        mininterval=pace(),
    )


@contextlib.contextmanager
def counter(description: str, *, enabled: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes what is done and the total, and moves a bar.

    Args:
        description: The phase's name.
        enabled: ``False`` shows nothing.
    """
    with tqdm(desc=description, disable=not enabled, dynamic_ncols=True, mininterval=pace()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def pace() -> float:
    """Return the least seconds between two updates of a bar: many on a screen, few in a log."""
    return 0.1 if sys.stderr.isatty() else 10.0
