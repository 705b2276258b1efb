"""Finds the folders for training, tests and normal images in a tree as MVTec's, by their names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import folders_in
from meds_plugin.data.words import Meaning, meaning, word_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meds_plugin.data.words import Part

__all__ = ["is_normal", "normal_folders", "part_folder"]


def part_folder(category: Path, part: Part) -> Path:
    """Return a category's folder ``train`` or ``test``, also as ``Train`` or ``training``."""
    names = (part, part.capitalize(), part.upper(), f"{part}ing", f"{part}ing".capitalize())
    places = [category / name for name in names]
    # Not Path.is_dir: that raises where a folder may not be entered.
    return next((place for place in places if os.path.isdir(place)), places[0])  # noqa: PTH112


def is_normal(name: str, words: Sequence[str] | None = None) -> bool:
    """Whether a folder's name means normal.

    Args:
        name: The name.
        words: The only ones that do, in any spelling; ``None``: the usual ones, as ``good`` and
            ``OK``.
    """
    if words is not None:
        return word_key(name) in map(word_key, words)
    return meaning(name, of_defect=True) is Meaning.NORMAL


def normal_folders(folder: Path, words: Sequence[str] | None = None) -> list[Path]:
    """Return the folders in a folder whose names mean normal (see `is_normal`).

    Raises:
        UserError: If the folder cannot be listed.
    """
    return [path for path in folders_in(folder) if is_normal(path.name, words)]
