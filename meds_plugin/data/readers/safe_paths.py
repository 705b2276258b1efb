"""Keeps paths that a table or a user names inside a folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

__all__ = ["is_plain_name", "path_inside"]


def path_inside(root: Path, text: str) -> PurePosixPath | None:
    """Return where a path lies below a folder, by its text alone.

    ``.`` and ``..`` are worked off in the text, so ``a/../b`` is ``b`` wherever a link ``a`` may
    lead; what is opened is then the result, never the text. Whether anything is there is not
    looked at.

    Args:
        root: The folder. Of a link to it both names count, its own and that of its target.
        text: A path relative to the root, or an absolute one.

    Returns:
        The path relative to the root, without ``..``; ``.`` for the root itself; ``None`` for a
        path that leads out of it and for text that is no path (empty, or with a zero in it).
    """
    if not text or "\0" in text:
        return None
    named = Path(os.path.normpath(root.absolute()))
    for base in (named, root.resolve()) if os.path.isabs(text) else (named,):  # noqa: PTH117
        path = Path(os.path.normpath(base / text))
        if path.is_relative_to(base):
            return PurePosixPath(path.relative_to(base).as_posix())
    return None


def is_plain_name(name: str) -> bool:
    """Whether a text names something in a folder itself, not somewhere else."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")
