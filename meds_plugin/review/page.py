"""Writes ``review.html``, which needs no server and no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from meds_plugin.review.facts import page_facts
from meds_plugin.review.parts import image_parts, text_size
from meds_plugin.utils.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from meds_plugin.review.likeness import Likeness
    from meds_plugin.review.ranked_run import RankedRun
    from meds_plugin.review.store import ReviewImages

__all__ = ["PAGE", "page_text", "write_page"]

_SCRIPTS = (
    "csv.js",
    "decisions.js",
    "images.js",
    "view.js",
    "sections.js",
    "tile.js",
    "grid.js",
    "large.js",
    "main.js",
)
PAGE = "review.html"
_FOLDER = "review_files"
_ONE_FILE = 48_000_000  # characters of thumbnails and heatmaps up to which the page holds them


def write_page(
    run: Path,
    ranked: RankedRun,
    images: ReviewImages,
    *,
    likeness: Likeness | None = None,
    suspicion: Sequence[float] | None = None,
    headline: str | None = None,
    cut_short: str | None = None,
) -> Path:
    """Write the page of a run; return it.

    With more than some 10 000 images, thumbnails and heatmaps go into a folder ``review_files``
    beside it, from which the page takes what it shows.

    Args:
        run: The run's folder.
        ranked: The training images.
        images: Their thumbnails and heatmaps, in the manifest's order.
        likeness: Which images are alike, if that is known.
        suspicion: A newer order of the images of ``ranked``, by which the page sorts at first:
            higher = to be reviewed sooner.
        headline: A text for the page's head.
        cut_short: Says that the training ended early.
    """
    facts = page_facts(run, ranked, images, likeness)
    facts |= {"suspicion": suspicion, "headline": headline, "cutShort": cut_short}
    place = {name: index for index, name in enumerate(ranked.manifest)}
    parts = image_parts(images, [place[image.path] for image in ranked.images])
    page = run / PAGE
    if text_size(images) <= _ONE_FILE:
        write_text(page, page_text(facts, parts))
        return page
    (run / _FOLDER).mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        text = f"reviewPart({json.dumps(facts['id'])},{number},{json.dumps(part)});\n"
        write_text(run / _FOLDER / f"part-{number:05d}.js", text)
    write_text(page, page_text(facts | {"folder": _FOLDER}))
    return page


def page_text(facts: dict[str, Any], parts: Iterable[str] = ()) -> str:
    """Return a page.

    Names of files and categories are not trusted: they are only ever part of JSON in which no
    markup can begin, and a content security policy allows only the page's own script and style;
    with a ``folder``, also scripts that this script loads, but none that the markup names.

    Args:
        facts: What is known of the images (see `page_facts`).
        parts: Thumbnails and heatmaps (see `image_parts`); none, if they are in a ``folder``.

    Returns:
        HTML in ASCII.
    """
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"
    style = _asset("page.css")
    loaded = " 'strict-dynamic'" if "folder" in facts else ""
    title = html.escape(f"Review of {facts['name']}")
    inserted = {
        "policy": (
            f"default-src 'none'; img-src data:; script-src '{_policy_hash(script)}'{loaded}; "
            f"style-src '{_policy_hash(style)}'; base-uri 'none'; form-action 'none'"
        ),
        "title": title.encode("ascii", "xmlcharrefreplace").decode(),
        "style": style,
        "script": script,
        "data": _json(facts),
        # The browser stores these elements without parsing their content.
        "parts": "\n".join(
            f'<script type="text/plain" id="part-{number}">{part}</script>'
            for number, part in enumerate(parts)
        ),
    }
    # One pass: placeholders in what is inserted stay as they are.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: inserted[match[1]], _asset("page.html"))


def _json(content: dict[str, Any]) -> str:
    """Return JSON in ASCII that is safe inside a script element."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return (files("meds_plugin.review") / "assets" / name).read_text(encoding="ascii")


def _policy_hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
