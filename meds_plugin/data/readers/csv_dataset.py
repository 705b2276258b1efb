"""Reads a data set listed in a CSV table: `data=csv`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.csv_table import read_table
from meds_plugin.data.faults import shown
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.listed_images import EntryError, listed_file
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.data.csv_table import CsvRow

__all__ = ["read_csv"]

_COLUMNS = ("path", "split", "label", "mask", "category")
_NAMES = ", ".join(_COLUMNS)
_NORMAL = frozenset({"0", "0.0", "false", "normal", "good", "ok"})
_NAMELESS = frozenset({"1", "1.0", "true"})
# What programs write for missing values: it may mean unknown, or no defect.
_UNCLEAR = frozenset({"nan", "na", "n/a", "none", "null", "unknown", "?", "-", "-1", "-1.0"})


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
        msg = f"data.file=FILE is missing: name a table (CSV) with the columns {_NAMES}"
        raise UserError(msg)
    source = f"data.file={shown(str(file))}"
    advice = f"its first row is to name {_NAMES}"
    table = read_table(file, "data.file", _COLUMNS, needed=["path"], advice=advice)
    if not table.rows:
        msg = f"{source} lists no image; add a row for each"
        raise UserError(msg)
    beside = Path(os.path.expanduser(file)).parent  # noqa: PTH111 - as in `read_text`
    folder = data_folder(beside if root is None else root, "the images that data.file lists")
    own_name = Path(os.path.normpath(folder.absolute())).name
    rows = [(row, row.cells.get("category", "").strip() or own_name) for row in table.rows]
    names = chosen_categories(categories, {category for _, category in rows}, source)
    found = Split([], [], folders=(folder,))
    if others := [shown(name) for name in table.columns if name not in _COLUMNS]:
        found.notes.append(f"{source}: other columns, kept as they are: {', '.join(others)}")
    unused = 0
    lines: dict[str, int] = {}
    for row, category in rows:
        if category not in names:
            continue
        try:
            test, sample = _entry(row, category, folder, lines)
        except EntryError as error:
            reason = f"{source}, row {row.number}: {error}"
            found.problems.append(Problem(row.cells["path"], reason))
            continue
        if sample.mask is not None and not sample.is_anomaly:
            sample = replace(sample, mask=None)
            unused += 1
        (found.test if test else found.train).append(sample)
    if unused:
        found.notes.append(
            f"{source}: masks of images not known to show a defect, unused: {unused}"
        )
    return sort_by_category(found, names, source=source, masks="masks (column mask)")


def _entry(row: CsvRow, category: str, root: Path, lines: dict[str, int]) -> tuple[bool, Sample]:
    """Return whether a row is of a test image, and its sample.

    Args:
        row: The row.
        category: Its category.
        root: The folder that paths are relative to.
        lines: The rows of earlier images, by name.

    Raises:
        EntryError: If the row cannot be used.
    """
    if any(cell.strip() for cell in row.surplus):
        msg = "it has more cells than the header; put a name with the separator in it in quotes"
        raise EntryError(msg)
    cells = row.cells
    place = listed_file(root, cells["path"])
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
    return test, Sample(
        name,
        category,
        defect,
        root / place,
        root / listed_file(root, mask) if mask.strip() else None,
        injected=None if test or not known else defect is not None,
        extra={key: value for key, value in cells.items() if key not in _COLUMNS},
    )


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
