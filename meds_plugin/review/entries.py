"""Reads from a run's folder what the page says of the training images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Entry", "Reviewed", "read_review"]


@dataclass(frozen=True)
class Entry:
    """A training image as the ranking has it.

    Attributes:
        path: Its name.
        category: Its category.
        score: Selection score of the final model, higher = more suspicious.
        selected: Whether the method keeps it in the end.
        memory: Score of the memory ensemble, or ``None``.
        distilled: Score of the distilled model, or ``None``.
        probability: Of being contaminated, in [0, 1], or ``None`` where it is unknown.
    """

    path: str
    category: str
    score: float
    selected: bool
    memory: float | None
    distilled: float | None
    probability: float | None


@dataclass(frozen=True)
class Reviewed:
    """What there is to review.

    Attributes:
        entries: From most to least suspicious.
        manifest: Names of the images in the order of training.
        thresholds: The last threshold of each category; none for a category that has several, one
            a camera view, or of which nothing was selected.
        contamination: Content of ``contamination.json``, or nothing.
    """

    entries: list[Entry]
    manifest: list[str]
    thresholds: dict[str, float]
    contamination: dict[str, Any]


def read_review(run: Path) -> Reviewed:
    """Read a finished run.

    Args:
        run: Its folder.

    Raises:
        UserError: If the folder holds no finished run, or a file of it does not belong.
    """
    for name in ("ranking.csv", "manifest.csv", "selection.csv"):
        if not (run / name).is_file():
            msg = f"{run} holds no finished run (no {name}): give the folder of one"
            raise UserError(msg)
    try:
        entries = [_entry(row) for row in read_rows(run / "ranking.csv")]
        manifest = [row["path"] for row in read_rows(run / "manifest.csv")]
        last = {row["category"]: row for row in read_rows(run / "selection.csv")}
        thresholds = {group: _finite(row["threshold"]) for group, row in last.items()}
    except (KeyError, ValueError, TypeError) as error:
        msg = f"{run}: ranking.csv, manifest.csv or selection.csv is damaged ({error!r})"
        raise UserError(msg) from error
    if sorted(manifest) != sorted(entry.path for entry in entries):
        msg = f"{run}: ranking.csv and manifest.csv name different images: copy the run again"
        raise UserError(msg)
    names = {entry.category for entry in entries}
    own = {name: value for name, value in thresholds.items() if name in names}
    return Reviewed(entries, manifest, own, _contamination(run / "contamination.json"))


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        path=row["path"],
        category=row["category"],
        score=_finite(row["score"]),
        selected=row["selected"] == "1",
        memory=_number(row["memory"]),
        distilled=_number(row["distilled"]),
        probability=_number(row.get("probability") or ""),
    )


def _number(text: str) -> float | None:
    return _finite(text) if text else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text} is no finite number"
        raise ValueError(msg)
    return value


def _contamination(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_finite)
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read ({error}): remove it"
        raise UserError(msg) from error
    return content if isinstance(content, dict) else {}
