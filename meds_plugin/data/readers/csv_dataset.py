"""Reads a data set listed in a CSV table: `data=csv`."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import first_line, parse_csv, read_text
from meds_plugin.data.faults import shown
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.listed_images import EntryError
from meds_plugin.data.readers.safe_paths import path_inside
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.data.csv_table import CsvRow, CsvTable

__all__ = ["read_csv"]

_COLUMNS = ("path", "split", "label", "mask", "category")
_NORMAL = frozenset({"0", "0.0", "false", "normal", "good", "ok"})
_NAMELESS = frozenset({"1", "1.0", "true"})
# What programs write for missing values: it may mean unknown, or no defect.
_UNCLEAR = frozenset({"nan", "na", "n/a", "none", "null", "unknown", "?", "-", "-1", "-1.0"})


class _Entry(NamedTuple):
    test: bool
    sample: Sample
    mask_unused: bool


def read_csv(
    file: str | os.PathLike[str] | None,
    root: str | os.PathLike[str] | None = None,
    categories: Sequence[str] | str | None = None,
) -> Split:
    r"""List the images in a table, one per row.

    The table is CSV in UTF-8 with commas, semicolons or tabs. Columns, in any order and case:

    | column | holds | if empty or not there |
    |---|---|---|
    | path | the image: relative to the root or absolute in it; with ``/`` or ``\`` | a problem |
    | split | ``train`` or ``test`` | no column: all are training images; empty: a problem |
    | label | see below | training image: unknown; test image: a problem |
    | mask | the mask, like path; used for images known to show a defect | no mask |
    | category | the product or texture | the root's name |

    Labels ``0 false normal good ok`` mean normal, ``1 true`` a defect of the kind ``anomaly``, and
    any other word a defect of that kind; ``nan`` and the like are a problem, since they may mean
    normal or unknown. Training images with a label have ``injected`` set. Other columns go into
    `Sample.extra`. Images are not opened.

    Args:
        file: The table.
        root: The folder that paths are relative to; default: the table's folder.
        categories: Which to read, in any order; ``None``: all.

    Returns:
        The images by category and name. Rows that cannot be used are among the problems, by their
        number in a spreadsheet: for a path or mask that leads out of the root or does not exist, a
        repeated path, an unknown split or an unclear label.

    Raises:
        UserError: If the file cannot be read, is not UTF-8, has no column ``path`` or no row; or if
            the root or a category does not exist, or a category has no training images.
    """
    if file is None:
        msg = f"data.file=FILE is missing: name a table (CSV) with the columns {_listed(_COLUMNS)}"
        raise UserError(msg)
    source = f"data.file={shown(str(file))}"
    table = _table(file, source)
    beside = Path(os.path.expanduser(file)).parent  # noqa: PTH111 - as in `read_text`
    folder = data_folder(beside if root is None else root, "the images that data.file lists")
    own_name = Path(os.path.normpath(folder.absolute())).name
    rows = [(row, row.cells.get("category", "").strip() or own_name) for row in table.rows]
    names = chosen_categories(categories, {category for _, category in rows}, folder)
    found = Split([], [], notes=_other_columns(table, source), folders=(folder,))
    unused = 0
    lines: dict[str, int] = {}
    for row, category in rows:
        if category not in names:
            continue
        try:
            entry = _entry(row, category, folder, lines)
        except EntryError as error:
            reason = f"{source}, row {row.number}: {error}"
            found.problems.append(Problem(row.cells["path"], reason))
            continue
        (found.test if entry.test else found.train).append(entry.sample)
        unused += entry.mask_unused
    if unused:
        found.notes.append(
            f"{source}: masks of images not known to show a defect, unused: {unused}"
        )
    return sort_by_category(found, names, source=source, masks="masks (column mask)")


def _table(file: str | os.PathLike[str], source: str) -> CsvTable:
    text = read_text(file, "data.file")
    table = parse_csv(text, file, "data.file", _COLUMNS)
    if table is None:
        columns = _listed(_COLUMNS)
        msg = (
            f"{source} has no column path ({first_line(text)}); its first row is to name {columns}"
        )
        raise UserError(msg)
    if not table.rows:
        msg = f"{source} lists no image; add a row for each"
        raise UserError(msg)
    return table


def _other_columns(table: CsvTable, source: str) -> list[str]:
    others = [shown(name) for name in table.columns if name not in _COLUMNS]
    return [f"{source}: other columns, kept as they are: {_listed(others)}"] if others else []


def _entry(row: CsvRow, category: str, root: Path, lines: dict[str, int]) -> _Entry:
    """Return the sample of a row; `lines` holds the rows of earlier images, by name.

    Raises:
        EntryError: If the row cannot be used.
    """
    if any(cell.strip() for cell in row.surplus):
        msg = "it has more cells than the header; put a name with the separator in it in quotes"
        raise EntryError(msg)
    cells = row.cells
    place = _located(root, cells["path"], "path")
    name = place.as_posix()
    if (before := lines.setdefault(name, row.number)) != row.number:
        msg = f"{shown(name)} is listed in row {before} already; keep one of the two"
        raise EntryError(msg)
    test = _is_test(cells.get("split"))
    known, defect = _label(cells.get("label", ""))
    if test and not known:
        msg = "a test image needs a label; write normal or the defect's name, or make it train"
        raise EntryError(msg)
    mask = cells.get("mask", "")
    file = root / _located(root, mask, "mask") if mask.strip() else None
    sample = Sample(
        name,
        category,
        defect,
        root / place,
        file if defect else None,
        injected=None if test or not known else defect is not None,
        extra={key: value for key, value in cells.items() if key not in _COLUMNS},
    )
    return _Entry(test, sample, mask_unused=file is not None and defect is None)


def _located(root: Path, text: str, column: str) -> PurePosixPath:
    """Return the file that a cell names, relative to the root.

    Raises:
        EntryError: If it is not a file below the root.
    """
    trimmed = text.strip()
    if not trimmed:
        msg = f"its {column} is empty; name a file or take the row out"
        raise EntryError(msg)
    spellings = dict.fromkeys((text, trimmed, trimmed.replace("\\", "/")))
    places = [path_inside(root, spelling) for spelling in spellings]
    for place in places:
        # Not Path.is_file, which raises if a folder may not be entered or a name is too long.
        if place is not None and os.path.isfile(root / place):  # noqa: PTH113
            return place
    outside = None in places or PureWindowsPath(trimmed).drive
    what = "leads out of" if outside else "is not a readable file in"
    msg = f"{column} {shown(text)} {what} {shown(str(root))}; fix it, or set data.root"
    raise EntryError(msg)


def _is_test(text: str | None) -> bool:
    word = "train" if text is None else text.strip().casefold()
    if word not in ("train", "test"):
        msg = f"split {shown(word) if word else 'is empty, which'} is unknown; write train or test"
        raise EntryError(msg)
    return word == "test"


def _label(text: str) -> tuple[bool, str | None]:
    """Return whether a label is given, and the kind of defect it names, if any."""
    label = text.strip()
    word = label.casefold()
    if word in _UNCLEAR:
        msg = f"label {shown(label)} may mean unknown or normal; leave it empty, or write normal"
        raise EntryError(msg)
    if not word or word in _NORMAL:
        return bool(word), None
    return True, "anomaly" if word in _NAMELESS else label


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
