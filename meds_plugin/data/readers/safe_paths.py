"""Keeps paths that a table or a user names within a folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

__all__ = ["is_plain_name", "path_inside"]


def path_inside(root: Path, text: str) -> PurePosixPath | None:
    """Return a path relative to a folder, by its text alone.

    ``.`` and ``..`` are resolved in the text, so ``a/../b`` is ``b`` wherever a link ``a`` leads;
    open the result, never the text. Whether the path exists does not matter.

    Args:
        root: The folder. If it is a link, absolute paths may begin with it or with its target.
        text: A path relative to the root, or an absolute one.

    Returns:
        The path relative to the root, without ``..``; ``.`` for the root itself; ``None`` for a
        path that leads out of it and for text that is not a path (empty, or with a null character).
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
    """Whether a text is the name of a file or folder, not a path to one."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")
