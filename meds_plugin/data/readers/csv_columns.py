"""Which column of a table holds what, by its name: the columns of `data=csv`."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import first_line, parse_csv, read_text
from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import IMAGE_SUFFIXES
from meds_plugin.data.words import Meaning, is_missing, meaning, part_of, word_key
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from meds_plugin.data.csv_table import CsvRow

__all__ = ["COLUMNS", "ImageTable", "asks_for_defect", "is_label_column", "read_image_table"]

# What other programs call the columns, each list in order of precedence.
_NAMES = {
    "path": (
        *("path", "image path", "img path", "file path", "filename", "image file", "image name"),
        *("image", "img", "file"),
    ),
    "split": ("split", "subset"),
    "label": (
        *("label", "labels", "gt label", "label index", "label id"),
        *("is anomaly", "is anomalous", "anomalous", "is defect", "is defective", "defective"),
        *("anomaly", "defect", "defect type", "defect class", "defect name"),
        *("anomaly type", "anomaly class", "anomaly label", "failure type", "fault type"),
        *("target", "targets", "class"),
    ),
    "mask": ("mask", "mask path", "mask file", "mask name", "gt mask", "gt path", "gt mask path"),
    "category": ("category", "object", "clsname", "object name", "category name"),
}
_OFTEN_OTHERS = ("target", "targets", "class")  # such as the product
COLUMNS = tuple(_NAMES)
_KEY = "data.file"


def _key(name: str) -> str:
    """Return what two spellings of a column's name have in common."""
    return re.sub(r"[\W_]+", "", name.casefold())


_RANKS = {
    _key(name): (column, rank)
    for column, names in _NAMES.items()
    for rank, name in enumerate(names)
}


class ImageTable(NamedTuple):
    """A table of images.

    Attributes:
        rows: Its rows; the columns that are read are called as `COLUMNS`.
        names: What the file calls these columns.
        others: All other columns.
        notes: Which column is read as what, where it has another name, and what is not read.
    """

    rows: list[CsvRow]
    names: dict[str, str]
    others: list[str]
    notes: list[str]


def asks_for_defect(column: str) -> bool:
    """Whether a column is named after defects, so that ``none`` in it means normal."""
    return any(word in _key(column) for word in ("defect", "anomal", "fail", "fault"))


def read_image_table(file: str | os.PathLike[str]) -> ImageTable:
    """Read a table and find its columns by their names, in any case and spelling.

    Raises:
        UserError: If the file cannot be read as a table, lists no image, or calls a column that is
            needed by a name which is not known; the message names the one to rename.
    """
    source = f"{_KEY}={shown(str(file))}"
    text = read_text(file, _KEY)
    table = parse_csv(text, file, _KEY, _columns)
    if table is None:
        advice = _rename_path(text, file) or f"its first row is to name {', '.join(COLUMNS)}"
        msg = f"{source} has no column path ({first_line(text)}); {advice}"
        raise UserError(msg)
    if not table.rows:
        msg = f"{source} lists no image; add a row for each"
        raise UserError(msg)
    columns = list(zip(table.columns, table.header, strict=True))
    names = {column: name for column, name in columns if column in COLUMNS}
    if _key(names.get("label", "")) in _OFTEN_OTHERS and not any(
        _is_label(row.cells["label"]) for row in table.rows
    ):
        name = names.pop("label")
        for row in table.rows:
            row.cells[name] = row.cells.pop("label")
    others = [
        name if column in COLUMNS else column for column, name in columns if column not in names
    ]
    read = [f"{shown(name)} as {c}" for c, name in names.items() if _key(name) != c]
    notes = [f"{source}: columns read: {', '.join(read)}"] if read else []
    values = {name: [row.cells[name].strip() for row in table.rows] for name in others}
    if "split" not in names:
        _refuse_unread_split(source, values)
    if "label" not in names:
        tested = [row for row in table.rows if part_of(row.cells.get("split", "")) == "test"]
        notes += _unread_labels(source, values, tested)
    if "mask" not in names:
        unread = [shown(name) for name in others if _names_images(values[name])]
        notes += [f"{source}: if {name} holds masks, rename it to mask" for name in unread]
    if others:
        kept = ", ".join(map(shown, others))
        notes.append(f"{source}: other columns, kept as they are: {kept}")
    return ImageTable(table.rows, names, others, notes)


def is_label_column(name: str) -> bool:
    """Whether a column holds labels, by its name."""
    return _RANKS.get(_key(name), ("", 0))[0] == "label"


def _columns(header: Sequence[str]) -> list[str]:
    """Return the columns' names: of several for one thing, the first in precedence is read."""
    found = [_RANKS.get(_key(name)) for name in header]
    best = {rank[0]: rank for rank in sorted(filter(None, found), reverse=True)}
    return [
        rank[0] if rank and rank == best[rank[0]] else name
        for name, rank in zip(header, found, strict=True)
    ]


def _rename_path(text: str, file: str | os.PathLike[str]) -> str | None:
    """Say which column seems to hold the names of images, whatever it is called."""

    def numbered(header: Sequence[str]) -> list[str]:
        return ["path", *map(str, range(len(header)))][: len(header)]

    table = parse_csv(text, file, _KEY, numbered)
    if table is None:
        return None
    for column, name in zip(table.columns, table.header, strict=True):
        if _names_images([row.cells[column] for row in table.rows]) and not _names_images([name]):
            return f"rename its column {shown(name)} to path"
    return None


def _names_images(cells: Sequence[str]) -> bool:
    given = [cell.strip() for cell in cells if not is_missing(cell)]
    images = sum(PurePosixPath(cell).suffix.lower() in IMAGE_SUFFIXES for cell in given)
    return 2 * images > len(given)


def _refuse_unread_split(source: str, values: dict[str, list[str]]) -> None:
    """Refuse to train on everything where a column seems to tell test images apart."""
    for name, cells in values.items():
        parts = {part_of(cell) for cell in cells}
        told = None not in parts and parts not in ({"train"}, {"val"})
        named = part_of(_key(name).removeprefix("is")) and _is_binary(cells)
        if told or named:
            msg = (
                f"{source}: the column {shown(name)} holds {_some(cells)}; rename it to split, "
                "with train and test in it"
            )
            raise UserError(msg)


def _unread_labels(
    source: str, values: dict[str, list[str]], tested: Sequence[CsvRow]
) -> list[str]:
    """Say which column seems to hold labels; refuse to go on if test images need them."""
    found = None
    for name, cells in values.items():
        said = any(len(cell) > 1 and _is_label(cell) for cell in cells)
        if not (said or _is_binary(cells) or (tested and is_label_column(name))):
            continue
        inverse = meaning(_key(name).removeprefix("is")) is Meaning.NORMAL
        more = " and give data.normal=WORD with its word for normal" if inverse else ""
        found = f"the column {shown(name)} holds {_some(cells)}: if it labels images, rename it to "
        found += f"label{more}"
        break
    if tested:
        advice = found or "add one with normal or the defect's name"
        msg = f"{source} has no column label, which its {len(tested)} test images need; {advice}"
        raise UserError(msg)
    return [f"{source}: {found}"] if found else []


def _is_label(cell: str) -> bool:
    return meaning(cell) in (Meaning.NORMAL, Meaning.DEFECTIVE)


def _is_binary(cells: Sequence[str]) -> bool:
    keys = {word_key(cell) for cell in cells}
    return keys in ({"0", "1"}, {"true", "false"}, {"yes", "no"}, {"y", "n"}, {"ja", "nein"})


def _some(cells: Sequence[str]) -> str:
    words = [shown(cell) for cell in dict.fromkeys(cells) if cell]
    return first_few(words)
