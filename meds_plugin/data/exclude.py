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

__all__ = ["decided", "decision_word", "exclude", "read_exclude"]

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
        return {name for name, drop in decided(table, file).items() if drop}
    if Path(file).suffix.lower() in (".csv", ".tsv"):
        msg = (
            f"{_KEY}={shown(str(file))} has no column path; name the column of the images path, "
            "or give plain text with one name per line"
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


def decided(
    table: CsvTable, file: str | os.PathLike[str], *, key: str = _KEY
) -> dict[str, bool | None]:
    """Return what a table says of each image it names: drop, keep (false) or undecided (``None``).

    Args:
        table: With a column ``path``; without a column ``decision``, all rows drop.
        file: Where the table comes from, for messages.
        key: The setting that names the file, for messages.

    Raises:
        UserError: As `read_exclude`.
    """
    rows: dict[str, tuple[int, bool | None]] = {}
    for row in table.rows:
        where = f"{key}={shown(str(file))}, row {row.number}"
        path = row.cells["path"]
        if any(cell.strip() for cell in row.surplus):
            msg = f"{where} has more cells than the header; put a name with a comma in quotes"
            raise UserError(msg)
        drop = decision_word(row.cells.get("decision", "drop"), where)
        if not path.strip():
            msg = f"{where} has no path; name an image or remove the row"
            raise UserError(msg)
        first, before = rows.get(path, (row.number, drop))
        if bool(before) != bool(drop):
            msg = f"{where} contradicts row {first} on {shown(path)}; decide for one of them"
            raise UserError(msg)
        rows[path] = (first, drop if before is None else before)
    return {path: drop for path, (_, drop) in rows.items()}


def decision_word(word: str, where: str) -> bool | None:
    """Return whether a word drops an image; ``None``: it leaves that open.

    Args:
        word: In any case.
        where: Where it stands, for the message.

    Raises:
        UserError: If it is unknown.
    """
    plain = word.strip().casefold()
    if plain in _LEAVE_OUT:
        return True
    if plain not in _LEAVE_IN:
        msg = f"{where}: decision {shown(word.strip())} is unknown; write drop, keep or undecided"
        raise UserError(msg)
    return False if plain == "keep" else None


def _spellings(name: str) -> list[str]:
    trimmed = name.strip()
    slashes = trimmed.replace("\\", "/")
    return [name, trimmed, posixpath.normpath(trimmed), slashes, posixpath.normpath(slashes)]
