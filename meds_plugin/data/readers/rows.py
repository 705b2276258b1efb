"""Reads tables as spreadsheets save them: CSV in UTF-8, with commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.faults import shown
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Row", "Table", "first_line", "parse_rows", "read_text"]

_DELIMITERS = ",;\t"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        number: As a spreadsheet counts, where the header is row 1 and empty rows count.
        cells: Text by column; a cell that is not there is empty.
        surplus: Cells beyond the last column.
    """

    number: int
    cells: dict[str, str]
    surplus: list[str]


class Table(NamedTuple):
    """Names of the columns, and the rows that are not empty."""

    columns: list[str]
    rows: list[Row]


def read_text(file: str | os.PathLike[str], key: str) -> str:
    """Return the text of a file in UTF-8, without a byte-order mark.

    Args:
        file: The file; a leading ``~`` is the home folder.
        key: The setting that names it, for messages.

    Raises:
        UserError: If it cannot be read or has another encoding.
    """
    path = os.path.expanduser(file)  # noqa: PTH111 - Path.expanduser raises for `~nobody`
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        msg = f"{key}={shown(path)} cannot be read ({error.strerror}); give a file in CSV or text"
        raise UserError(msg) from error
    except ValueError as error:  # no text in UTF-8, or no path
        raise UserError(_no_text(path, key)) from error
    if "\0" in text:  # other encodings of two bytes a letter
        raise UserError(_no_text(path, key))
    return text


def parse_rows(
    text: str,
    file: str | os.PathLike[str],
    key: str,
    known: Collection[str],
    *,
    needed: str = "path",
) -> Table | None:
    """Return the table in a text, if it is one with a needed column.

    The delimiter is the one of ``, ; tab`` that splits the header into most columns with the needed
    one among them.

    Args:
        text: What the file holds.
        file: The file, for messages.
        key: The setting that names it, for messages.
        known: Columns that are known in any mixture of upper and lower case; they get these names.
            Others keep their own; one without a name is called ``column N``.
        needed: One of those known, without which the text is no such table.

    Returns:
        The table, or ``None`` if the first row that is not empty does not name the needed column.

    Raises:
        UserError: If two columns have the same name or quotes are not closed.
    """
    delimiter, columns = max(
        ((d, _columns(text, d, known, needed)) for d in _DELIMITERS),
        key=lambda found: len(found[1]),
    )
    if not columns:
        return None
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        msg = f"{key}={shown(str(file))} has several columns named {shown(twice[0])}; keep one"
        raise UserError(msg)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for number, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                named = dict(zip(columns, padded, strict=False))
                rows.append(Row(number, named, cells[len(columns) :]))
    except csv.Error as error:
        where = f"{key}={shown(str(file))}, line {reader.line_num}"
        msg = f'{where}: {error}; a name with a quote in it is written "a ""b"".png"'
        raise UserError(msg) from error
    return Table(columns, rows[1:])


def _columns(text: str, delimiter: str, known: Collection[str], needed: str) -> list[str]:
    """Return the columns' names by one delimiter, none if the needed one is not among them."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next((row for row in rows if any(cell.strip() for cell in row)), [])
    except csv.Error:
        return []
    names = [cell.strip() for cell in header]
    while names and not names[-1]:  # delimiters at the end of each row
        names.pop()
    plain = [name.casefold() if name.casefold() in known else name for name in names]
    named = [name or f"column {number}" for number, name in enumerate(plain, start=1)]
    return named if needed in named else []


def first_line(text: str) -> str:
    """Say how a text begins, for a message about a table without the needed column."""
    first = next((line for line in text.splitlines() if line.strip()), "")[:80]
    return f"it begins with {shown(first)}" if first else "it is empty"


def _no_text(path: str, key: str) -> str:
    return f"{key}={shown(path)} is not text in UTF-8; save it as 'CSV UTF-8' or as text in UTF-8"
