"""Leaves training images out: those that a list or a review names."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.readers.rows import parse_rows, read_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

    from meds_plugin.data.readers.rows import Table
    from meds_plugin.data.samples import Sample

__all__ = ["decided", "exclude", "read_exclude"]

_KEY = "data.exclude"
_LEAVE_OUT = frozenset({"drop", "exclude", "remove", "defect"})
_LEAVE_IN = frozenset({"", "keep", "undecided"})


def read_exclude(file: str | os.PathLike[str]) -> set[str]:
    """Return the names of training images that are to be left out.

    Args:
        file: UTF-8, one of two kinds. CSV (commas, semicolons or tabs) with a column ``path`` and,
            if not all rows count, a column ``decision``: rows with ``drop``, ``exclude``,
            ``remove`` or ``defect`` count, those with ``keep``, ``undecided`` or nothing do not.
            Or plain text with a name a line, where empty lines and those that begin with ``#`` are
            passed over.

    Returns:
        The names as they are written; none is an answer too.

    Raises:
        UserError: If the file cannot be read, has another encoding, is named ``.csv`` without a
            column ``path``, or a row has an unknown decision, no path, or contradicts another.
    """
    text = read_text(file, _KEY)
    table = parse_rows(text, file, _KEY, ("path", "decision"))
    if table is not None:
        return decided(table, file)
    if Path(file).suffix.lower() in (".csv", ".tsv"):
        msg = (
            f"{_KEY}={shown(str(file))} has no column path; name the column of the images path, "
            "or give plain text with one name a line"
        )
        raise UserError(msg)
    # Not splitlines: names may hold some of what it takes for the end of a line.
    lines = text.replace("\r\n", "\n").split("\n")
    return {line for line in lines if line.strip() and not line.startswith("#")}


def exclude(samples: Sequence[Sample], names: Collection[str]) -> tuple[list[Sample], list[str]]:
    r"""Leave training images out by name.

    Args:
        samples: The training images.
        names: From `read_exclude`. A name is an image's own; if no image has it, spaces around it,
            ``./`` before it and ``\`` as separator are forgiven.

    Returns:
        The images that stay, in their order, and the names that are of no training image, sorted.
    """
    there = {sample.path for sample in samples}
    dropped: set[str] = set()
    unknown: list[str] = []
    for name in names:
        match = next((each for each in _spellings(name) if each in there), None)
        if match is None:
            unknown.append(name)
        else:
            dropped.add(match)
    kept = [sample for sample in samples if sample.path not in dropped]
    return kept, sorted(unknown)


def decided(table: Table, file: str | os.PathLike[str], *, key: str = _KEY) -> set[str]:
    """Return the names in the rows of a table that leave an image out.

    Args:
        table: With a column ``path``; without a column ``decision``, all rows count.
        file: Where it comes from, for messages.
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
