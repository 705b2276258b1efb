"""Texts that users write and read: paths, quotes, lists in messages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["counted", "expand_home", "first_few", "unquoted"]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which takes an s unless there is one."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def expand_home(path: str | os.PathLike[str]) -> str:
    """Return a path with the home folder in place of a leading ``~``.

    Unlike `pathlib.Path.expanduser`, leaves ``~nobody`` as it is and never raises.
    """
    return os.path.expanduser(path)  # noqa: PTH111


def first_few(words: Sequence[str], most: int = 3) -> str:
    """List words with commas, followed by ``...`` where there are more than ``most``."""
    return ", ".join([*words[:most], *(["..."] if len(words) > most else [])])


def unquoted(text: str) -> str:
    """Return a text without a pair of quotes around it; nothing inside is unescaped."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text
