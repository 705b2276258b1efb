"""Recognises known folder layouts, to say which ``data=NAME`` reads a folder."""

from __future__ import annotations

import glob
import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import IMAGE_SUFFIXES, folders_in, images_in
from meds_plugin.data.readers.part_folders import part_folder
from meds_plugin.data.words import Meaning, meaning
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["guess_layout", "known_layout", "wrong_layout"]

_VISA = frozenset(
    {"candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"}
    | {"pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"}
)
_BTAD = frozenset({"01", "02", "03"})
_LOCO = frozenset({"logical_anomalies", "structural_anomalies"})
_MOST_LISTED = 10_000
_MOST_NEAR = 20


def guess_layout(root: str | os.PathLike[str]) -> str | None:
    """Return the layout that a folder seems to have, by the names of a few folders in it.

    Args:
        root: Any path; one that cannot be listed has no layout.

    Returns:
        ``mvtec``, ``mvtec_ad_2`` (which ``data=mvtec`` reads), ``mvtec_loco``, ``btad``, ``visa``,
        ``real_iad``, ``kolektor_sdd``, ``kolektor_sdd2``, ``folder`` for any other with an image in
        it, or ``None``.
    """
    return _known(Path(root)) or ("folder" if _holds_image(Path(root)) else None)


def known_layout(root: str | os.PathLike[str]) -> str | None:
    """Say which public data set's layout a folder has and what reads it; ``None``: none."""
    known = _known(Path(root))
    return f"looks like {known}; use data={_read_as(known)}" if known else None


def wrong_layout(root: str | os.PathLike[str], asked: str, expected: str) -> str:
    """Return the message for a folder without the layout that its reader expects.

    Args:
        root: The folder.
        asked: The reader's name, as in ``data=NAME``.
        expected: The layout it expects, in a few words.

    Returns:
        One line that says which layout the folder has instead, or where the right folder is.
    """
    folder = Path(root)
    start = f"data.root={folder} is not laid out as {asked} (expected {expected})"
    known = _known(folder)
    if known and _read_as(known) != asked:
        return f"{start}: it {known_layout(folder)}"
    inside = _folders(folder)
    for near in () if known else (*inside[:_MOST_NEAR], folder.absolute().parent):
        if _read_as(_known(near)) == asked:
            return f"{start}: {near} is; use data.root={near}"
    if not known and _holds_image(folder):
        return f"{start}: it looks like folder; use data=folder"
    seen = first_few([path.name for path in inside], 5)
    return (
        f"{start}: it holds {'the folders ' + seen if seen else 'no folders'}; name the right one"
    )


def _read_as(layout: str | None) -> str | None:
    """Return the ``data=NAME`` that reads a layout."""
    return "mvtec" if layout == "mvtec_ad_2" else layout


def _known(folder: Path) -> str | None:
    """Return the layout of a public data set, by the names of its folders; ``None``: none."""
    inside = _folders(folder)
    names = {path.name for path in inside}
    if "split_csv" in names or any(_has_folder(path, "Data", "Images") for path in inside):
        return "visa"
    if any(name.startswith("realiad_") for name in names):
        return "real_iad"
    if any(re.fullmatch(r"kos\d+", p.name) and _holds(p, r"Part\d+_label\.\w+") for p in inside):
        return "kolektor_sdd"
    if any(_holds(part_folder(folder, part), r"\d+_GT\.\w+") for part in ("train", "test")):
        return "kolektor_sdd2"
    if tree := _tree([folder, *inside]):
        return tree
    return "visa" if "1cls" in names and _tree(_folders(folder / "1cls")) else None


def _tree(folders: Iterable[Path]) -> str | None:
    """Return which data set in MVTec's layout has these categories; ``None``: none."""
    categories = [path for path in folders if _known_good(part_folder(path, "train"))]
    if any(_has_folder(path, "test_public") for path in categories):
        return "mvtec_ad_2"
    named = (_category_of(path) for path in categories)
    return next(filter(None, named), "mvtec" if categories else None)


def _category_of(folder: Path) -> str | None:
    """Return which data set has such a category, by its name or its kinds of defect."""
    name = os.path.basename(os.path.normpath(folder.absolute()))  # noqa: PTH119 - also of "."
    kinds = {path.name for path in _folders(part_folder(folder, "test"))}
    meanings = {meaning(kind) for kind in kinds}
    if kinds & _LOCO and not any(_images(folder / "ground_truth" / kind) for kind in kinds & _LOCO):
        return "mvtec_loco"
    ok = _has_folder(part_folder(folder, "train"), "ok") and kinds <= {"ok", "ko"}
    if name in _BTAD and ok:
        return "btad"
    if name in _VISA and meanings and meanings <= {Meaning.NORMAL, Meaning.DEFECTIVE}:
        return "visa"
    return None


def _known_good(folder: Path) -> bool:
    return any(meaning(path.name, of_defect=True) is Meaning.NORMAL for path in _folders(folder))


def _holds_image(folder: Path) -> bool:
    """Whether there is an image among the first names below a folder, hidden ones apart."""
    names = glob.iglob("**/*", root_dir=folder, recursive=True)  # noqa: PTH207 - not hidden names
    return any(Path(n).suffix.lower() in IMAGE_SUFFIXES for n in islice(names, _MOST_LISTED))


def _folders(folder: Path) -> list[Path]:
    try:
        return folders_in(folder)
    except (UserError, OSError):  # what cannot be listed does not count
        return []


def _images(folder: Path) -> list[Path]:
    try:
        return images_in(folder)
    except UserError:
        return []


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder holds a name that a pattern matches."""
    try:
        with os.scandir(os.fspath(folder)) as entries:
            return any(re.fullmatch(name, entry.name) for entry in entries)
    except OSError:
        return False


def _has_folder(folder: Path, *inner: str) -> bool:
    # Not Path.is_dir: that raises where a folder may not be entered.
    return os.path.isdir(folder.joinpath(*inner))  # noqa: PTH112
