"""``manifest.csv`` of a quarantine: what lies there, where it is from, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from meds_plugin.data.csv_table import read_table
from meds_plugin.data.faults import shown
from meds_plugin.data.readers.safe_paths import path_inside
from meds_plugin.utils.atomic import write_csv
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["MANIFEST", "How", "PutAside", "read_manifest", "write_manifest"]

MANIFEST = "manifest.csv"
How = Literal["copy", "link", "move"]


class PutAside(NamedTuple):
    """A row: an image that was put aside.

    Attributes:
        path: Its file, relative to the quarantine.
        source: Where it was; empty for an image made in code.
        how: Copied, linked or moved.
        name: Its name in the run.
        category: Its category.
        rank: Its place in the ranking, 1 = most suspicious.
        score: Its selection score, higher = more suspicious.
        probability: Probability of contamination, where known.
        decision: What the reviewer decided.
        note: What the reviewer remarked.
        digest: Of the file (see `content_digest`).
    """

    path: str
    source: str
    how: str
    name: str
    category: str
    rank: str
    score: str
    probability: str
    decision: str
    note: str
    digest: str


def read_manifest(folder: Path, key: str) -> list[PutAside]:
    """Return the rows of a quarantine's manifest.

    Args:
        folder: The quarantine.
        key: The option that names it, for messages.

    Raises:
        UserError: If there is none, a column is missing, or a path leads outside the folder.
    """
    file = folder / MANIFEST
    advice = "give a folder that --quarantine wrote"
    table = read_table(file, key, PutAside._fields, needed=PutAside._fields, advice=advice)
    rows = [PutAside(*(row.cells[field] for field in PutAside._fields)) for row in table.rows]
    for row in rows:
        inside = path_inside(folder, row.path)
        real = (folder / row.path).parent.resolve()
        if inside is None or not real.is_relative_to(folder.resolve()):
            msg = f"{file}: {shown(row.path)} leads outside {folder}: repair the file"
            raise UserError(msg)
        if row.how not in get_args(How):
            known = ", ".join(get_args(How))
            msg = f"{file}: {shown(row.how)} is not one of {known}: repair the file"
            raise UserError(msg)
    return rows


def write_manifest(folder: Path, rows: Iterable[PutAside]) -> None:
    """Write the manifest of a quarantine, whose folder is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / MANIFEST, PutAside._fields, (row._asdict() for row in rows))
