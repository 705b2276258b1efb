"""Says in one line what is wrong with a file."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bad_name", "failure", "shown", "writable"]


def shown(text: str) -> str:
    """Return a text fit for a message of one line."""
    return text if text.isprintable() else repr(text)


def writable(text: str) -> str:
    """Return a text that UTF-8 can hold, with escapes for what it cannot."""
    return text.encode("utf-8", "backslashreplace").decode()


def bad_name(name: str, category: str = "") -> str | None:
    """Say what is wrong with an image's name, or its category's, that no result file can hold."""
    if writable(name + category) == name + category:
        return None
    return f"{shown(name)} has a name that is not UTF-8, which no result file can hold: rename it"


def failure(path: Path, error: OSError) -> str:
    """Say what the system has against a file or folder, and what to do; the name goes before it."""
    if error.errno == errno.ENOENT:
        if path.is_symlink():
            return f"is a link to {shown(str(path.readlink()))}, which does not exist: mend it"
        return "does not exist: put it back, or take its name out"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself: mend it"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "may not be read: give this user the permission"
    return f"cannot be read ({error.strerror}): check its disk or remove it"
