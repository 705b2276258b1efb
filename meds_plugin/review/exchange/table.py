"""A plain table, which is a file of decisions, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from meds_plugin.utils.atomic import csv_text

if TYPE_CHECKING:
    from meds_plugin.review.exchange.entries import Entries, Entry

__all__ = ["table_advice", "table_files"]

_COLUMNS = (
    "path",
    "category",
    "decision",
    "note",
    "rank",
    "score",
    "selected",
    "memory",
    "distilled",
    "probability",
    "file",
    "width",
    "height",
    "boxes",
)


def table_files(found: Entries) -> dict[str, str]:
    """Return the table by its name: a row an image.

    ``boxes`` is a JSON list of left, top, width and height in pixels and a score in [0.5, 1].
    """
    return {"images.csv": csv_text(_COLUMNS, map(_row, found.entries))}


def table_advice(found: Entries) -> str:
    """Say what the table is good for."""
    return f"fill in its column decision (keep, drop), then --apply {found.output / 'images.csv'}"


def _row(entry: Entry) -> dict[str, Any]:
    facts, size = entry.facts(), (entry.width, entry.height)
    boxes = [[*region.pixels(*size), region.score] for region in entry.regions]
    decision = (
        {"decision": entry.decision.word, "note": entry.decision.note} if entry.decision else {}
    )
    known = {"path": facts.pop("name"), **facts, **decision, "selected": int(entry.image.selected)}
    return known | {
        "file": str(entry.file),
        "width": entry.width,
        "height": entry.height,
        "boxes": json.dumps(boxes),
    }
