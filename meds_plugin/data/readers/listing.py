"""Lists folders of images: which files count as images, in which order, what is passed over."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.faults import failure, shown
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "Below", "below", "folders_in", "images_in", "natural"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder itself, in natural order; none if it is not there.

    What cannot be read, as a link to nowhere, is listed as well: the check of all files names it.

    Raises:
        UserError: If the folder cannot be listed.
    """
    return [p for p in _visible(folder) if p.suffix.lower() in IMAGE_SUFFIXES and not _is_folder(p)]


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, in natural order; none if it is not there.

    Raises:
        UserError: If the folder cannot be listed.
    """
    return [path for path in _visible(folder) if _is_folder(path)]


class Below(NamedTuple):
    """What lies in a folder and in all folders in it.

    Attributes:
        images: A folder's own first, then folder by folder. What cannot be read, as a link to
            nowhere, is among them if it is named as an image is.
        others: Files of other kinds.
        unreadable: Folders that may not be listed and links to nowhere, with the reason.
        upward: Links to a folder that holds them; passed over, for they have no end.
    """

    images: list[Path]
    others: list[Path]
    unreadable: list[tuple[Path, str]]
    upward: list[Path]


def below(folder: Path) -> Below:
    """Look through a folder and all folders in it, in natural order, without hidden names."""
    found = Below([], [], [], [])
    # Not by recursion: folders may be nested deeper than calls.
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
        for path in entries:
            if fault := _fault(path):
                found.unreadable.append((path, fault))
            elif _is_folder(path):
                inner.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                found.images.append(path)
            else:
                found.others.append(path)
        todo += [(path, above | {real}) for path in reversed(inner)]
    return found


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key: numbers by value, and equal ones (7, 07) by text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _fault(path: Path) -> str | None:
    """Say why nobody can tell what something is; the check of all files tells it of images."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return None
    try:
        path.stat()
    except OSError as error:
        return f"{shown(str(path))} {failure(path, error)}"
    return None


def _is_folder(path: Path) -> bool:
    """Whether it is one, for all that can be told."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return False
        msg = f"{path} cannot be read ({error.strerror}); check its permissions"
        raise UserError(msg) from error
    except OSError:
        return False


def _visible(folder: Path) -> list[Path]:
    """List a folder in natural order without names that begin with a dot."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        msg = f"{folder} cannot be listed ({error.strerror}); check its permissions"
        raise UserError(msg) from error
    return [folder / name for name in sorted(names, key=natural) if not name.startswith(".")]
