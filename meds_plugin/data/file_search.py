"""Finds images in folders: which files count as images, in which order, what is passed over."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.faults import failure, shown
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "IMAGE_SUFFIXES",
    "FolderContents",
    "folders_in",
    "images_in",
    "is_folder",
    "natural_key",
    "search_folder",
]

_KINDS = "bmp gif j2k jp2 jpeg jpg pbm pgm png pnm ppm tif tiff webp"
_MANY = 10_000  # names that take a moment, on a network drive longer
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())


def is_folder(path: Path) -> bool:
    """Whether a path is a folder.

    Raises:
        UserError: If that is unknown because a folder above it may not be entered.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        msg = f"{shown(str(path))} cannot be read ({error.strerror}); check its permissions"
        raise UserError(msg) from error
    except OSError:  # such as a link to nothing
        return False


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder, without subfolders, in natural order; none if it is missing.

    What cannot be read, such as a dangling link, is listed too: the check of all files reports it.

    Raises:
        UserError: If the folder cannot be listed.
    """
    named = [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    return [path for path in named if not os.path.isdir(path)]  # noqa: PTH112 - never raises


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, in natural order; none if it is missing.

    Raises:
        UserError: If the folder cannot be listed.
    """
    return [path for path in _visible(folder) if is_folder(path)]


class FolderContents(NamedTuple):
    """The files in a folder and its subfolders.

    Attributes:
        images: A folder's own first, then those of its subfolders. What cannot be read, such as a
            dangling link, is among them if it has the suffix of an image.
        others: Files of other kinds.
        unreadable: Folders that may not be listed and dangling links, with the reason.
        upward: Links to a folder that contains them; passed over, since they have no end.
    """

    images: list[Path]
    others: list[Path]
    unreadable: list[tuple[Path, str]]
    upward: list[Path]


def search_folder(folder: Path) -> FolderContents:
    """Search a folder and its subfolders, in natural order, without hidden names."""
    found = FolderContents([], [], [], [])
    # Not recursive: folders may be nested deeper than calls.
    todo = [(folder, frozenset(folder.resolve().parents))]
    while todo:
        here, above = todo.pop()
        real = here.resolve()
        if real in above:
            found.upward.append(here)
            continue
        inner = []
        try:
            entries = _visible(here)
        except UserError as error:
            found.unreadable.append((here, str(error)))
            continue
        many = len(entries) > _MANY and sys.stderr.isatty()
        for path in track(entries, description=f"list {shown(here.name)}", enabled=many):
            if os.path.isdir(path):  # noqa: PTH112 - never raises
                inner.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                found.images.append(path)
            elif fault := _fault(path):
                found.unreadable.append((path, fault))
            else:
                found.others.append(path)
        todo += [(path, above | {real}) for path in reversed(inner)]
    return found


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key: numbers by value, equal ones (7, 07) by text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _fault(path: Path) -> str | None:
    """Say why a path cannot be looked up; ``None`` if it can."""
    try:
        path.stat()
    except OSError as error:
        return f"{shown(str(path))} {failure(path, error)}"
    return None


def _visible(folder: Path) -> list[Path]:
    """List a folder in natural order, without names that begin with a dot."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        msg = f"{shown(str(folder))} cannot be listed ({error.strerror}); check its permissions"
        raise UserError(msg) from error
    return [folder / name for name in sorted(names, key=natural_key) if not name.startswith(".")]
