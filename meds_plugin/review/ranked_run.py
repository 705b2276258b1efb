"""Reads from a run's folder what the page says about the training images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RankedImage", "RankedRun", "read_ranked_run"]


@dataclass(frozen=True)
class RankedImage:
    """A training image as the ranking lists it.

    Attributes:
        path: Its name.
        category: Its category.
        score: Selection score of the final model, higher = more suspicious.
        selected: Whether the last selection includes it.
        memory: Score of the memory ensemble, or ``None``.
        distilled: Score of the distilled model, or ``None``.
        probability: Probability of contamination in [0, 1]; ``None``: unknown.
        issues: What is wrong with the file whatever the detector says, such as ``blurry``.
        duplicates: Number of its group of near-duplicates; ``None``: it is in none.
    """

    path: str
    category: str
    score: float
    selected: bool
    memory: float | None
    distilled: float | None
    probability: float | None
    issues: tuple[str, ...]
    duplicates: int | None


@dataclass(frozen=True)
class RankedRun:
    """The ranked training images of a finished run.

    Attributes:
        images: From most to least suspicious.
        manifest: Names of the images in training order.
        thresholds: The last threshold by category, without categories that have several (one per
            camera view) or no selection.
        contamination: Content of ``contamination.json``; empty if there is none.
    """

    images: list[RankedImage]
    manifest: list[str]
    thresholds: dict[str, float]
    contamination: dict[str, Any]


def read_ranked_run(run: Path) -> RankedRun:
    """Read a finished run.

    Args:
        run: Its folder.

    Raises:
        UserError: If the folder holds no finished run, a file in it is damaged, or ranking and
            manifest list different images.
    """
    for name in ("ranking.csv", "manifest.csv", "selection.csv"):
        if not (run / name).is_file():
            msg = f"{run} holds no finished run (no {name}): give the folder of one"
            raise UserError(msg)
    try:
        images = [_ranked_image(row) for row in read_rows(run / "ranking.csv")]
        manifest = [row["path"] for row in read_rows(run / "manifest.csv")]
        last = {row["category"]: row for row in read_rows(run / "selection.csv")}
        thresholds = {group: _finite(row["threshold"]) for group, row in last.items()}
    except (KeyError, ValueError, TypeError) as error:
        msg = f"{run}: ranking.csv, manifest.csv or selection.csv is damaged ({error!r})"
        raise UserError(msg) from error
    if sorted(manifest) != sorted(image.path for image in images):
        msg = f"{run}: ranking.csv and manifest.csv list different images: copy the run again"
        raise UserError(msg)
    categories = {image.category for image in images}
    thresholds = {name: value for name, value in thresholds.items() if name in categories}
    return RankedRun(images, manifest, thresholds, _read_contamination(run / "contamination.json"))


def _ranked_image(row: dict[str, str]) -> RankedImage:
    return RankedImage(
        path=row["path"],
        category=row["category"],
        score=_finite(row["score"]),
        selected=row["selected"] == "1",
        memory=_optional(row["memory"]),
        distilled=_optional(row["distilled"]),
        probability=_optional(row.get("probability", "")),
        issues=tuple(row["issues"].split()),
        duplicates=int(row["duplicate_group"]) if row["duplicate_group"] else None,
    )


def _optional(text: str) -> float | None:
    return _finite(text) if text else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text} is not a finite number"
        raise ValueError(msg)
    return value


def _read_contamination(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(
            file.read_text(encoding="utf-8"), parse_constant=_finite
        )
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read ({error}): remove it"
        raise UserError(msg) from error
    return content
