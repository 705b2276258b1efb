"""The folders and patterns that give images their roles, for `data=folder`."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import is_folder
from meds_plugin.data.readers.safe_paths import path_inside
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home
from meds_plugin.utils.values import is_list

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Parts", "Pattern", "Patterns", "locate", "read_patterns"]

Parts: TypeAlias = tuple[str, ...]
Patterns: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None"


@dataclass(frozen=True)
class Pattern:
    """Matches images by their names relative to the root.

    Attributes:
        text: As the user gave it, with the setting's name: ``data.test=...``.
        parts: A wildcard expression for each part of a name; ``**`` stands for any number of parts.
        outside: The folder, if it does not lie below the root.
        literal: Whether it is the name of a folder or file, without wildcards.
    """

    text: str
    parts: Parts
    outside: Path | None = None
    literal: bool = True

    def base(self, name: Parts) -> Parts | None:
        """Return the folder that matches an image; its subfolders name kinds of defects.

        A pattern matches files, and folders with all that is in them. The base is the folder that
        matches without ``*`` and ``**`` at the pattern's end: ``LINE/test/good/1.png`` has the base
        ``LINE/test`` for ``*/test``, ``*/test/*`` and ``*/test/*/*.png``. For patterns of ``*`` and
        ``**`` only, it is the image's own folder.

        Args:
            name: The image's name, in parts.

        Returns:
            The first parts of the name; ``None`` if the image does not match.
        """
        depth = _depth(self.parts, name)
        if depth is None:
            return None
        parts = self.parts[:-1] if depth == len(name) else self.parts
        while parts and parts[-1] in ("*", "**"):
            parts = parts[:-1]
        shortest = _depth(parts, name) if parts else None
        return name[: min(depth, len(name) - 1) if shortest is None else shortest]


def read_patterns(key: str, given: Patterns, root: Path) -> list[Pattern]:
    """Return the patterns of a setting.

    Args:
        key: The setting, such as ``data.test``.
        given: One or several folders, files or patterns. Folders and files are relative to the
            root or absolute; folders may lie outside it. Patterns have ``*``, ``**``, ``?`` or
            ``[]`` and match names below the root. What exists as written is not a pattern.
        root: The data set's folder.

    Raises:
        UserError: If a folder or file does not exist, or contains the root.
    """
    if given is None:
        return []
    several = given if is_list(given) else [given]
    # A folder named 2024 is a number on the command line.
    return [_read(key, str(text), root) for text in several]


def locate(key: str, text: str, root: Path) -> tuple[Parts, Path] | None:
    """Return an existing folder or file: its parts relative to the root (may be ``..``), its path.

    Raises:
        UserError: If it contains the root.
    """
    plain = expand_home(text)
    place = path_inside(root, plain)
    base = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(base / plain)) if place is None else root / place
    if not plain or "\0" in plain:
        return None
    if not is_folder(path) and not (place and os.path.isfile(path)):  # noqa: PTH113 - never raises
        return None
    if place is not None:
        return place.parts, path
    if base.is_relative_to(path):
        what = f"holds data.root={shown(str(root))}; name a folder in it or beside it"
        msg = f"{key}={shown(text)} {what}"
        raise UserError(msg)
    return Path(os.path.relpath(path, base)).parts, path


def _read(key: str, text: str, root: Path) -> Pattern:
    named = f"{key}={shown(text)}"
    found = locate(key, text, root)
    if found is not None:
        parts, path = found
        escaped = tuple(glob.escape(part) for part in parts)
        return Pattern(named, escaped, path if parts[:1] == ("..",) else None)
    place = path_inside(root, expand_home(text))
    if place is None or not glob.has_magic(text):
        msg = (
            f"{named}: there is no such folder; name one relative to data.root={shown(str(root))}, "
            "an absolute one, or a pattern such as '*/test'"
        )
        raise UserError(msg)
    return Pattern(named, place.parts, literal=False)


def _depth(pattern: Parts, name: Parts) -> int | None:
    """Return the smallest number of first parts of a name that match; ``None`` if none do."""
    depths = range(len(name) + 1)
    return next((depth for depth in depths if _matches(pattern, name[:depth])), None)


def _matches(pattern: Parts, name: Parts) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(pattern[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _matches(pattern[1:], name[1:])
