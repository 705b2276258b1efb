"""Builds ``review.html``: one file that needs no server and no network."""

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

    from meds_plugin.review.entries import Reviewed
    from meds_plugin.review.store import Pictures

__all__ = ["build_page"]

SCRIPTS = ("csv.js", "decisions.js", "pictures.js", "view.js", "grid.js", "large.js", "main.js")
_CHUNK = 256  # images whose data stand in one element


def build_page(run: Path, reviewed: Reviewed, pictures: Pictures) -> str:
    """Return the page of a run.

    Names of files and categories come from outside: they only ever stand in the page as JSON in
    which no markup can begin, and a content security policy allows nothing but the page's own
    script and style.

    Args:
        run: The run's folder; its name is shown, and the command to go on with names it.
        reviewed: What there is to review.
        pictures: What is shown of the images, in the manifest's order.

    Returns:
        ASCII text.
    """
    place = {name: index for index, name in enumerate(reviewed.manifest)}
    order = [place[entry.path] for entry in reviewed.entries]
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"
    style = _asset("page.css")
    parts = {
        "policy": (
            f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; "
            f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
        ),
        "title": _ascii(html.escape(f"Review of {_short(run)}")),
        "style": style,
        "script": script,
        "facts": _json(_facts(run, reviewed, pictures, order)),
        "chunks": "\n".join([*_thumbnail_chunks(pictures, order), *_map_chunks(pictures, order)]),
    }
    # In one pass: what is filled in is not searched for further places.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _facts(run: Path, reviewed: Reviewed, pictures: Pictures, order: list[int]) -> dict[str, Any]:
    entries = reviewed.entries
    names = sorted({entry.category for entry in entries})
    maps = pictures.heatmaps
    thumbs = [pictures.thumbnails[index] for index in order]
    return {
        "id": _identity(reviewed),
        "name": _short(run),
        "apply": f"python -m meds_plugin.review {shlex.quote(str(run.absolute()))} --apply",
        "categories": names,
        "thresholds": [reviewed.thresholds.get(name) for name in names],
        "contamination": reviewed.contamination,
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
        "bytes": [_encoded_length(len(thumb.data)) for thumb in thumbs],
        "maps": None
        if maps is None
        else {
            "height": maps.values.shape[1],
            "width": maps.values.shape[2],
            "low": maps.low,
            "high": maps.high,
            "window": list(pictures.window),
        },
    }


def _identity(reviewed: Reviewed) -> str:
    """Return what decisions are kept under: the same for a page that is built again."""
    digest = hashlib.sha256()
    for entry in reviewed.entries:
        digest.update(f"{entry.path}\0{entry.category}\0{entry.score!r}\0".encode())
    return digest.hexdigest()[:24]


def _thumbnail_chunks(pictures: Pictures, order: list[int]) -> list[str]:
    texts = [base64.b64encode(pictures.thumbnails[index].data).decode() for index in order]
    return _chunks("thumbs", ["".join(part) for part in _cut(texts)])


def _map_chunks(pictures: Pictures, order: list[int]) -> list[str]:
    if pictures.heatmaps is None:
        return []
    values = pictures.heatmaps.values
    parts = (np.ascontiguousarray(values[part]).tobytes() for part in _cut(order))
    return _chunks("maps", [base64.b64encode(part).decode() for part in parts])


def _cut(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]


def _chunks(kind: str, texts: list[str]) -> list[str]:
    """Return elements that the browser takes in without looking into them."""
    return [
        f'<script type="text/plain" id="{kind}-{number}">{text}</script>'
        for number, text in enumerate(texts)
    ]


def _encoded_length(count: int) -> int:
    return 4 * ((count + 2) // 3)


def _json(content: dict[str, Any]) -> str:
    """Return JSON in ASCII that may stand inside a script element."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _ascii(text: str) -> str:
    return text.encode("ascii", "xmlcharrefreplace").decode()


def _asset(name: str) -> str:
    return (files("meds_plugin.review") / "assets" / name).read_text(encoding="ascii")


def _digest(text: str) -> str:
    """Return what a content security policy knows an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _short(run: Path) -> str:
    """Return the last parts of a run's path: a date alone says little."""
    return "/".join(run.absolute().parts[-2:])
