"""Locks on open files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import IO, TYPE_CHECKING, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lock", "try_lock"]

_WAIT = 0.01  # seconds between two attempts
_BYTE = 1 << 30  # Windows locks bytes, which others cannot read then: take one past the content


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed; return False where another process holds the lock.

    Raises:
        OSError: If the file system supports no locks.
    """
    try:
        if sys.platform == "win32":
            file.seek(_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows and some network drives
        return False
    return True


@contextlib.contextmanager
def lock(file: IO[Any]) -> Iterator[None]:
    """Wait for the lock of an open file and hold it inside the block.

    Raises:
        OSError: If the file system supports no locks.
    """
    while not try_lock(file):
        time.sleep(_WAIT)
    try:
        yield
    finally:
        if sys.platform == "win32":
            file.seek(_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_UN)
