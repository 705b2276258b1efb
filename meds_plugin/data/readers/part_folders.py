"""Finds the folders for training, tests and normal images in a tree as MVTec's, by their names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import folders_in
from meds_plugin.data.words import Meaning, meaning

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.words import Part

__all__ = ["normal_folders", "part_folder"]


def part_folder(category: Path, part: Part) -> Path:
    """Return a category's folder ``train`` or ``test``, also as ``Train`` or ``training``."""
    names = (part, part.capitalize(), part.upper(), f"{part}ing", f"{part}ing".capitalize())
    places = [category / name for name in names]
    # Not Path.is_dir: that raises where a folder may not be entered.
    return next((place for place in places if os.path.isdir(place)), places[0])  # noqa: PTH112


def normal_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder whose names mean normal, such as ``good`` and ``OK``.

    Raises:
        UserError: If the folder cannot be listed.
    """
    return [p for p in folders_in(folder) if meaning(p.name, of_defect=True) is Meaning.NORMAL]
