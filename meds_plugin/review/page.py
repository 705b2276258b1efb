"""Renders ``review.html``: one file that needs no server and no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.review.ranked_run import RankedRun
    from meds_plugin.review.store import ReviewImages

__all__ = ["page_text"]

_SCRIPTS = ("csv.js", "decisions.js", "images.js", "view.js", "grid.js", "large.js", "main.js")
_CHUNK = 256  # images whose data share one element


def page_text(
    run: Path, ranked: RankedRun, images: ReviewImages, *, cut_short: str | None = None
) -> str:
    """Return the page of a run.

    Names of files and categories are not trusted: they are only ever part of JSON in which no
    markup can begin, and a content security policy allows only the page's own script and style.

    Args:
        run: The run's folder; the page shows its name and the command that applies decisions to it.
        ranked: The training images.
        images: Their thumbnails and heatmaps, in the manifest's order.
        cut_short: Says that the training ended early.

    Returns:
        HTML in ASCII.
    """
    place = {name: index for index, name in enumerate(ranked.manifest)}
    order = [place[image.path] for image in ranked.images]
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"
    style = _asset("page.css")
    title = html.escape(f"Review of {_run_name(run)}")
    parts = {
        "policy": (
            f"default-src 'none'; img-src data:; script-src '{_policy_hash(script)}'; "
            f"style-src '{_policy_hash(style)}'; base-uri 'none'; form-action 'none'"
        ),
        "title": title.encode("ascii", "xmlcharrefreplace").decode(),
        "style": style,
        "script": script,
        "data": _json(_page_data(run, ranked, images, order) | {"cutShort": cut_short}),
        "chunks": "\n".join([*_thumbnail_chunks(images, order), *_map_chunks(images, order)]),
    }
    # One pass: placeholders in what is inserted stay as they are.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _page_data(
    run: Path, ranked: RankedRun, images: ReviewImages, order: list[int]
) -> dict[str, Any]:
    entries = ranked.images
    names = sorted({entry.category for entry in entries})
    maps = images.heatmaps
    thumbs = [images.thumbnails[index] for index in order]
    return {
        "id": _identity(ranked),
        "name": _run_name(run),
        "apply": f"python -m meds_plugin.review {shlex.quote(str(run.absolute()))} --apply",
        "categories": names,
        "thresholds": [ranked.thresholds.get(name) for name in names],
        "contamination": ranked.contamination,
        "chunk": _CHUNK,
        "path": [entry.path for entry in entries],
        "category": [names.index(entry.category) for entry in entries],
        "score": [entry.score for entry in entries],
        "selected": [int(entry.selected) for entry in entries],
        "memory": [entry.memory for entry in entries],
        "distilled": [entry.distilled for entry in entries],
        "probability": [entry.probability for entry in entries],
        "width": [thumb.width for thumb in thumbs],
        "height": [thumb.height for thumb in thumbs],
        "bytes": [4 * ((len(thumb.data) + 2) // 3) for thumb in thumbs],  # in base64
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


def _thumbnail_chunks(images: ReviewImages, order: list[int]) -> list[str]:
    texts = [base64.b64encode(images.thumbnails[index].data).decode() for index in order]
    return _chunks("thumbs", ["".join(part) for part in _in_chunks(texts)])


def _map_chunks(images: ReviewImages, order: list[int]) -> list[str]:
    if images.heatmaps is None:
        return []
    values = images.heatmaps.values
    parts = (np.ascontiguousarray(values[part]).tobytes() for part in _in_chunks(order))
    return _chunks("maps", [base64.b64encode(part).decode() for part in parts])


def _in_chunks(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]


def _chunks(kind: str, texts: list[str]) -> list[str]:
    """Return elements that the browser stores without parsing their content."""
    return [
        f'<script type="text/plain" id="{kind}-{number}">{text}</script>'
        for number, text in enumerate(texts)
    ]


def _json(content: dict[str, Any]) -> str:
    """Return JSON in ASCII that is safe inside a script element."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return (files("meds_plugin.review") / "assets" / name).read_text(encoding="ascii")


def _policy_hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _run_name(run: Path) -> str:
    """Return the last two parts of a run's path: the last may be only a time."""
    return "/".join(run.absolute().parts[-2:])
