"""What the page knows of each image, as one JSON object."""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING, Any

from meds_plugin.review.parts import PART, base64_length

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meds_plugin.review.likeness import Likeness
    from meds_plugin.review.ranked_run import RankedRun
    from meds_plugin.review.store import ReviewImages

__all__ = ["page_facts"]


def page_facts(
    run: Path, ranked: RankedRun, images: ReviewImages, likeness: Likeness | None
) -> dict[str, Any]:
    """Return the facts of a page, in lists by image in the ranking's order.

    A list is ``None`` where nothing is known of any image.

    Args:
        run: The run's folder.
        ranked: The training images.
        images: Their thumbnails and heatmaps, in the manifest's order.
        likeness: Which are alike, if that is known.
    """
    entries = ranked.images
    names = sorted({entry.category for entry in entries})
    numbers = {name: number for number, name in enumerate(names)}
    issues = sorted({issue for entry in entries for issue in entry.issues})
    place = {name: index for index, name in enumerate(ranked.manifest)}
    thumbs = [images.thumbnails[place[entry.path]] for entry in entries]
    maps = images.heatmaps
    return {
        "id": _identity(ranked),
        "name": "/".join(run.absolute().parts[-2:]),  # the last may be only a time,
        "apply": f"python -m meds_plugin.review {shlex.quote(str(run.absolute()))} --apply",
        "categories": names,
        "thresholds": [ranked.thresholds.get(name) for name in names],
        "contamination": ranked.contamination,
        "part": PART,
        "path": [entry.path for entry in entries],
        "category": [numbers[entry.category] for entry in entries],
        "score": [entry.score for entry in entries],
        "selected": [int(entry.selected) for entry in entries],
        "memory": _unless_unknown([entry.memory for entry in entries]),
        "distilled": _unless_unknown([entry.distilled for entry in entries]),
        "probability": _unless_unknown([entry.probability for entry in entries]),
        "issueNames": issues,
        # Bit b of a number stands for issue b.
        "issues": [sum(1 << issues.index(issue) for issue in entry.issues) for entry in entries]
        if issues
        else None,
        "duplicates": _unless_unknown([entry.duplicates for entry in entries]),
        "defects": _unless_unknown(likeness.defects) if likeness else None,
        "nearest": _unless_unknown(likeness.nearest) if likeness else None,
        "width": [thumb.width for thumb in thumbs],
        "height": [thumb.height for thumb in thumbs],
        "bytes": [base64_length(len(thumb.data)) for thumb in thumbs],  # in base64
        "maps": None
        if maps is None
        else {
            "height": maps.values.shape[1],
            "width": maps.values.shape[2],
            "low": maps.low,
            "high": maps.high,
            "window": list(images.window),
        },
    }


def _identity(ranked: RankedRun) -> str:
    """Return the key of stored decisions: the same for every page of the same ranking."""
    digest = hashlib.sha256()
    for image in ranked.images:
        digest.update(f"{image.path}\0{image.category}\0{image.score!r}\0".encode())
    return digest.hexdigest()[:24]


def _unless_unknown(values: Sequence[float | None]) -> Sequence[float | None] | None:
    return values if any(value is not None for value in values) else None
