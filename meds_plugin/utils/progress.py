"""Progress bars for long phases outside Lightning's training loop."""

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
    iterable: Iterable[T],
    *,
    description: str | None,
    total: int | None = None,
    enabled: bool = True,
) -> Iterator[T]:
    """Yield the items of an iterable and show a bar on standard error.

    In a distributed job, only the first rank shows one.

    Args:
        iterable: The items.
        description: The phase's name; ``None`` shows nothing.
        total: Number of items, if the iterable has no length.
        enabled: ``False`` shows nothing.
    """
    yield from tqdm(
        iterable,
        desc=description,
        total=total,
        disable=description is None or not enabled or launched_rank() > 0,
        dynamic_ncols=True,
        mininterval=pace(),
    )


@contextlib.contextmanager
def counter(description: str, *, enabled: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Provide a function that moves a bar, given the numbers of finished and of all items.

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
    """Return the seconds between two updates of a bar: few on a terminal, more in a log."""
    return 0.1 if sys.stderr.isatty() else 10.0
