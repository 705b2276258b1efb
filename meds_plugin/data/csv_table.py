"""Reads CSV in UTF-8 as spreadsheets save it: with commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from meds_plugin.data.faults import shown
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home

if TYPE_CHECKING:
    import os

__all__ = ["CsvRow", "CsvTable", "first_line", "parse_csv", "read_table", "read_text"]

_DELIMITERS = ",;\t"
Known: TypeAlias = Collection[str] | Callable[[Sequence[str]], list[str]]


class CsvRow(NamedTuple):
    """A row of a table.

    Attributes:
        number: As in a spreadsheet: the header is row 1, and empty rows count.
        cells: Text by column; missing cells are empty.
        surplus: Cells beyond the last column.
    """

    number: int
    cells: dict[str, str]
    surplus: list[str]


class CsvTable(NamedTuple):
    """A table.

    Attributes:
        columns: The names of the columns.
        rows: The rows that are not empty.
        header: The names as the file has them.
    """

    columns: list[str]
    rows: list[CsvRow]
    header: list[str]


def read_text(file: str | os.PathLike[str], key: str) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark.

    Args:
        file: The file; a leading ``~`` is the home folder.
        key: The setting that names it, for messages.

    Raises:
        UserError: If it cannot be read or is not UTF-8.
    """
    path = expand_home(file)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        msg = f"{key}={shown(path)} cannot be read ({error.strerror}); give a file in CSV or text"
        raise UserError(msg) from error
    except ValueError:  # not UTF-8, or not a path: the answer is the same as to a null character
        text = "\0"
    if "\0" in text:  # an encoding of two bytes per letter
        msg = f"{key}={shown(path)} is not text in UTF-8; save it as 'CSV UTF-8' or UTF-8 text"
        raise UserError(msg)
    return text


def read_table(
    file: str | os.PathLike[str],
    key: str,
    known: Known,
    *,
    needed: Sequence[str],
    advice: str,
) -> CsvTable:
    """Return the table in a file.

    Args:
        file: The file; a leading ``~`` is the home folder.
        key: The setting that names it, for messages.
        known: See `parse_csv`.
        needed: Columns that it must have, the most telling one first.
        advice: What to do where it lacks one, for the message.

    Raises:
        UserError: If it lacks a needed column; otherwise as `read_text` and `parse_csv`.
    """
    text = read_text(file, key)
    table = parse_csv(text, file, key, known, needed=needed[0])
    missing = [name for name in needed if table is None or name not in table.columns]
    if table is None or missing:
        what = f"has no column {', '.join(missing)} ({first_line(text)})"
        msg = f"{key}={shown(str(file))} {what}; {advice}"
        raise UserError(msg)
    return table


def parse_csv(
    text: str,
    file: str | os.PathLike[str],
    key: str,
    known: Known,
    *,
    needed: str = "path",
) -> CsvTable | None:
    """Return the table in a text, if it has a needed column.

    The delimiter is the one of ``, ; tab`` that gives the most columns, the needed one among them.

    Args:
        text: The content of the file.
        file: The file, for messages.
        key: The setting that names it, for messages.
        known: Names of columns that are matched in any case. Other columns keep their names; one
            without a name is called ``column N``. Or a function that names all columns of a header.
        needed: One of the known names, without which the text is not such a table.

    Returns:
        The table; ``None`` if the first non-empty row does not name the needed column.

    Raises:
        UserError: If two columns have the same name, or a quote is not closed.
    """
    headers = {delimiter: _header(text, delimiter) for delimiter in _DELIMITERS}
    named = {delimiter: _named(header, known) for delimiter, header in headers.items()}
    fitting = [delimiter for delimiter, columns in named.items() if needed in columns]
    if not fitting:
        return None
    delimiter = max(fitting, key=lambda each: len(named[each]))
    columns = named[delimiter]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        msg = f"{key}={shown(str(file))} has several columns named {shown(twice[0])}; keep one"
        raise UserError(msg)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for number, cells in enumerate(reader, start=1):
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                cells_by_name = dict(zip(columns, padded, strict=False))
                rows.append(CsvRow(number, cells_by_name, cells[len(columns) :]))
    except csv.Error as error:
        where = f"{key}={shown(str(file))}, line {reader.line_num}"
        msg = f'{where}: {error}; a name with a quote in it is written "a ""b"".png"'
        raise UserError(msg) from error
    return CsvTable(columns, rows[1:], headers[delimiter])


def _header(text: str, delimiter: str) -> list[str]:
    """Return the first row that is not empty, without empty cells at its end."""
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next((row for row in rows if any(cell.strip() for cell in row)), [])
    except csv.Error:
        return []
    names = [cell.strip() for cell in header]
    while names and not names[-1]:  # delimiters at the end of each row
        names.pop()
    return names


def _named(header: Sequence[str], known: Known) -> list[str]:
    if callable(known):
        names = known(header)
    else:
        names = [name.casefold() if name.casefold() in known else name for name in header]
    return [name or f"column {number}" for number, name in enumerate(names, start=1)]


def first_line(text: str) -> str:
    """Say how a text begins, for the message that a needed column is missing."""
    first = next((line for line in text.splitlines() if line.strip()), "")[:80]
    return f"it begins with {shown(first)}" if first else "it is empty"
