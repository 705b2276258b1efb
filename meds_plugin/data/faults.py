"""Parts of messages about files: names on one line, and what is wrong."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bad_name", "failure", "shown", "writable"]


def shown(text: str) -> str:
    """Return a text as it can stand in a one-line message."""
    return text if text.isprintable() else repr(text)


def writable(text: str) -> str:
    """Return a text that UTF-8 can encode, with escapes for what it cannot."""
    return text.encode("utf-8", "backslashreplace").decode()


def bad_name(name: str, category: str = "") -> str | None:
    """Say what is wrong with the name of an image or its category; ``None`` if nothing is."""
    if writable(name + category) == name + category:
        return None
    return f"{shown(name)} has a name that is not UTF-8, which no result file can hold: rename it"


def failure(path: Path, error: OSError) -> str:
    """Say why a file or folder cannot be read and what to do; its name goes before that."""
    if error.errno == errno.ENOENT:
        if path.is_symlink():
            return f"is a link to {shown(str(path.readlink()))}, which does not exist: fix it"
        return "does not exist: restore it, or remove its name"
    if error.errno == errno.ELOOP:
        return "is a link that leads back to itself: fix it"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "cannot be read (permission denied): check its permissions"
    return f"cannot be read ({error.strerror}): check its disk or remove it"
