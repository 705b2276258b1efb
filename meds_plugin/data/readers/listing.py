"""Lists folders of images: which files count as images, in which order, what is passed over."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "folders_in", "images_below", "images_in", "natural"]

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


def images_below(folder: Path) -> list[Path]:
    """Return the images of a folder and of all folders in it: its own first, then folder by folder.

    A folder that is reached a second time, through a link to one of those above it, is passed over.

    Raises:
        UserError: If a folder cannot be listed.
    """
    return _below(folder, frozenset())


def _below(folder: Path, above: frozenset[Path]) -> list[Path]:
    here = folder.resolve()
    if here in above:
        return []
    found = images_in(folder)
    for inner in folders_in(folder):
        found += _below(inner, above | {here})
    return found


def natural(name: str) -> tuple[list[str | int], str]:
    """Return a sort key: numbers by value, and equal ones (7, 07) by text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


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
