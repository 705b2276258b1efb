"""``decisions.csv``: what reviewers decided about the training images of a run."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import first_line, parse_csv, read_text
from meds_plugin.data.exclude import decided
from meds_plugin.data.faults import shown
from meds_plugin.utils.atomic import csv_text, write_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from meds_plugin.review.ranked_run import RankedImage

__all__ = ["Decision", "decisions_text", "free_file", "read_decisions", "write_list"]

_COLUMNS = ("path", "category", "decision")


class Decision(NamedTuple):
    """What was decided about an image.

    Attributes:
        drop: Whether to leave it out.
        note: A reviewer's remark; may be empty.
    """

    drop: bool
    note: str = ""

    @property
    def word(self) -> str:
        """``drop`` or ``keep``."""
        return "drop" if self.drop else "keep"


def read_decisions(
    file: Path, images: Sequence[RankedImage], *, key: str = "--apply"
) -> dict[str, Decision]:
    """Return the decisions in a file by the names of the images; undecided ones are left out.

    Args:
        file: A table with the columns ``path`` and ``decision``, maybe ``note``; see
            `read_exclude` for the words it may contain.
        images: The training images that it may name.
        key: The option that names the file, for messages.

    Raises:
        UserError: If it cannot be read, lacks a column, has an unknown decision or a name that is
            not in the run.
    """
    text = read_text(file, key)
    table = parse_csv(text, file, key, (*_COLUMNS, "note"))
    where = f"{key}={shown(str(file))}"
    if table is None or "decision" not in table.columns:
        missing = "path" if table is None else "decision"
        msg = (
            f"{where} has no column {missing}; {first_line(text)}; "
            "give the decisions.csv that the page downloads"
        )
        raise UserError(msg)
    words = decided(table, file, key=key)
    if unknown := sorted(words.keys() - {image.path for image in images}):
        msg = (
            f"{where}: {len(unknown)} names are not training images of the run, for example "
            f"{shown(unknown[0])}; give the decisions of this run"
        )
        raise UserError(msg)
    notes = {row.cells["path"]: row.cells.get("note", "").strip() for row in table.rows}
    return {name: Decision(drop, notes[name]) for name, drop in words.items() if drop is not None}


def decisions_text(images: Iterable[RankedImage], decisions: Mapping[str, Decision]) -> str:
    """Return the content of a ``decisions.csv``, in the order of the images."""
    known = [(image, found) for image in images if (found := decisions.get(image.path))]
    rows = [
        {"path": image.path, "category": image.category, "decision": found.word, "note": found.note}
        for image, found in known
    ]
    if not any(row["note"] for row in rows):
        rows = [{key: row[key] for key in _COLUMNS} for row in rows]
    return csv_text(list(rows[0]) if rows else _COLUMNS, rows)


def write_list(file: Path, text: str) -> None:
    """Write a table atomically.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        msg = f"{file} cannot be written ({error.strerror}): give another file with --output"
        raise UserError(msg) from error


def free_file(folder: Path, stem: str, text: str) -> Path:
    """Return the first of ``STEM.csv``, ``STEM2.csv``, ... that is free or holds this very text."""
    names = (f"{stem}{number}.csv" for number in itertools.chain([""], itertools.count(2)))
    files = (folder / name for name in names)
    return next(f for f in files if not f.exists() or f.read_bytes() == text.encode())
