"""Leaves out the training images that a list or a review names."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.csv_table import parse_csv, read_text
from meds_plugin.data.faults import shown
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

    from meds_plugin.data.csv_table import CsvTable
    from meds_plugin.data.samples import Sample

__all__ = ["exclude", "excluded_names", "read_exclude"]

_KEY = "data.exclude"
_LEAVE_OUT = frozenset({"drop", "exclude", "remove", "defect"})
_LEAVE_IN = frozenset({"", "keep", "undecided"})


def read_exclude(file: str | os.PathLike[str]) -> set[str]:
    """Return the names of the training images to leave out.

    Args:
        file: UTF-8 text of one of two kinds. CSV (commas, semicolons or tabs) with a column
            ``path`` and optionally a column ``decision``, which excludes an image by ``drop``,
            ``exclude``, ``remove`` or ``defect`` and not by ``keep``, ``undecided`` or an empty
            cell. Or one name per line; empty lines and those that begin with ``#`` are ignored.

    Returns:
        The names as written; may be empty.

    Raises:
        UserError: If the file cannot be read or is not UTF-8, is named ``.csv`` but has no column
            ``path``, or a row has an unknown decision, no path, or contradicts another.
    """
    text = read_text(file, _KEY)
    table = parse_csv(text, file, _KEY, ("path", "decision"))
    if table is not None:
        return excluded_names(table, file)
    if Path(file).suffix.lower() in (".csv", ".tsv"):
        msg = (
            f"{_KEY}={shown(str(file))} has no column path; name the column of the images path, "
            "or give plain text with one name a line"
        )
        raise UserError(msg)
    # Not splitlines: names may contain characters that it splits at.
    lines = text.replace("\r\n", "\n").split("\n")
    return {line for line in lines if line.strip() and not line.startswith("#")}


def exclude(samples: Sequence[Sample], names: Collection[str]) -> tuple[list[Sample], list[str]]:
    r"""Leave training images out by name.

    Args:
        samples: The training images.
        names: From `read_exclude`. A name that matches no image is tried again without surrounding
            spaces and a leading ``./``, and with ``/`` for ``\``.

    Returns:
        The remaining images, in order, and the names that match no training image, sorted.
    """
    paths = {sample.path for sample in samples}
    excluded: set[str] = set()
    unknown: list[str] = []
    for name in names:
        match = next((each for each in _spellings(name) if each in paths), None)
        if match is None:
            unknown.append(name)
        else:
            excluded.add(match)
    return [sample for sample in samples if sample.path not in excluded], sorted(unknown)


def excluded_names(table: CsvTable, file: str | os.PathLike[str], *, key: str = _KEY) -> set[str]:
    """Return the names of the images that a table excludes.

    Args:
        table: With a column ``path``; without a column ``decision``, all rows exclude.
        file: Where the table comes from, for messages.
        key: The setting that names the file, for messages.

    Raises:
        UserError: As `read_exclude`.
    """
    rows: dict[str, tuple[int, bool]] = {}
    for row in table.rows:
        where = f"{key}={shown(str(file))}, row {row.number}"
        path, decision = row.cells["path"], row.cells.get("decision", "drop").strip()
        word = decision.casefold()
        if any(cell.strip() for cell in row.surplus):
            msg = f"{where} has more cells than the header; put a name with a comma in quotes"
            raise UserError(msg)
        if word not in _LEAVE_OUT | _LEAVE_IN:
            msg = f"{where}: decision {shown(decision)} is unknown; write drop, keep or undecided"
            raise UserError(msg)
        if not path.strip():
            msg = f"{where} has no path; name an image or take the row out"
            raise UserError(msg)
        first, drop = rows.setdefault(path, (row.number, word in _LEAVE_OUT))
        if drop != (word in _LEAVE_OUT):
            msg = f"{where} contradicts row {first} on {shown(path)}; decide for one of them"
            raise UserError(msg)
    return {path for path, (_, drop) in rows.items() if drop}


def _spellings(name: str) -> list[str]:
    trimmed = name.strip()
    slashes = trimmed.replace("\\", "/")
    return [name, trimmed, posixpath.normpath(trimmed), slashes, posixpath.normpath(slashes)]
