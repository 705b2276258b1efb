"""Made-up run folders with as many images as a test wants."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from meds_plugin.review.build import rebuild_review
from meds_plugin.review.heatmaps import Heatmaps
from meds_plugin.review.store import ReviewImages, save_review_images
from meds_plugin.review.thumbnails import Thumbnail, thumbnail_side
from meds_plugin.utils.atomic import write_arrays, write_csv, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

THRESHOLD = 0.5
HOSTILE = (
    "</script><script>document.title='taken'</script>.png",
    "<img src=x onerror=document.title='taken'>.png",
    '"><b onmouseover=alert(1)>.png',
    "{{script}}${1+1}<!--.png",
    "a,b\r\n=1+1.png",
    "\u202egnp.exe\u2028ä 漢.png",
)
_KINDS = 24  # different thumbnails; the others repeat them


def make_run(
    folder: Path,
    names: Sequence[str],
    *,
    categories: Sequence[str] = ("wood",),
    probability: bool = False,
    stored: bool = True,
    exclude: str | None = None,
    root: Path | None = None,
    issues: Sequence[Sequence[str]] = ((),),
    duplicates: int = 0,
    embeddings: bool = False,
) -> Path:
    """Write a finished run: scores fall evenly from 1 to 0, categories take turns.

    Args:
        folder: Where to.
        names: The training images, from most to least suspicious.
        categories: Their categories, in turn.
        probability: Give each image a contamination probability, its score squared.
        stored: Store thumbnails and heatmaps.
        exclude: The run's ``data.exclude``.
        root: The folder that the images are in; default: a missing one.
        issues: Their issues, in turn.
        duplicates: So many of the most suspicious are near-duplicates, in pairs.
        embeddings: Store embeddings: what is odd about the images is one of four things, in turn;
            of what they show, neighbours in the ranking show the most alike.
    """
    folder.mkdir(parents=True)
    count = len(names)
    rows = [
        {
            "rank": place + 1,
            "path": name,
            "category": categories[place % len(categories)],
            "score": f"{1 - place / count:.7g}",
            "selected": int(1 - place / count < THRESHOLD),
            "injected": int(place < count // 8),
            "memory": f"{1 - place / count:.7g}",
            "distilled": None,
            "probability": f"{(1 - place / count) ** 2:.5g}" if probability else None,
            "issues": " ".join(issues[place % len(issues)]),
            "duplicate_group": place // 2 + 1 if place < duplicates else None,
        }
        for place, name in enumerate(names)
    ]
    write_csv(folder / "ranking.csv", list(rows[0]), rows)
    trained = sorted(rows, key=lambda row: str(row["path"]))
    write_csv(
        folder / "manifest.csv",
        ("path", "category", "injected"),
        [{key: row[key] for key in ("path", "category", "injected")} for row in trained],
    )
    last = {"step": 9, "kept": 1, "threshold": THRESHOLD, "median": 0.4, "mad": 0.1}
    selection = [{**last, "category": name} for name in categories]
    write_csv(folder / "selection.csv", list(selection[0]), selection)
    source = {"_target_": "meds_plugin.data.readers.folder.read_folder", "_partial_": True}
    source |= {"root": str(root or folder / "no such folder")}
    data = {"source": source, "image_size": 32, "crop": 16, "max_pixels": 1e8, "exclude": exclude}
    data["range"] = "full"
    config = {"data": data, "backbone": {"detector": None}}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
    if embeddings:
        turns = np.linspace(0, 1, count)
        peak, image = np.eye(4)[np.arange(count) % 4], np.stack([np.cos(turns), np.sin(turns)], 1)
        places = np.argsort(names)
        write_arrays(folder / "embeddings.npz", {"image": image[places], "peak": peak[places]})
    if stored:
        save_review_images(folder, _review_images(count))
    return folder


def make_metrics(run: Path, value: float, *, seed: int = 0) -> None:
    """Write metrics of one category that are all the same."""
    values = {"I-AUROC": value, "P-AP": None}
    content = {
        "cut_short": None,
        "mean": values,
        "categories": {"wood": values},
        "ranking": {"auprc": None},
        "protocol": {"seed": seed, "steps_done": 9, "total_steps": 9},
    }
    write_json(run / "metrics.json", content)


def _review_images(count: int) -> ReviewImages:
    rng = np.random.default_rng(0)
    side = thumbnail_side(count)
    kinds = [_thumbnail(rng, side, kind) for kind in range(min(count, _KINDS))]
    thumbs = [kinds[place % len(kinds)] for place in range(count)]
    bumps = rng.integers(0, 24, (count, 2))
    rows, columns = np.mgrid[:28, :28]
    distance = np.hypot(rows - bumps[:, 0, None, None], columns - bumps[:, 1, None, None])
    maps = np.clip(255 - 40 * distance, 0, 255).astype(np.uint8)
    return ReviewImages(thumbs, Heatmaps(maps, 0.02, 0.75), (0.0625, 0.0625, 0.9375, 0.9375))


def _thumbnail(rng: np.random.Generator, side: int, kind: int) -> Thumbnail:
    """Return stripes with grain, about as many bytes as a photograph of a surface."""
    height = side if kind % 3 else side * 3 // 4
    x, y = np.meshgrid(np.arange(side), np.arange(height))
    wave = np.sin((x * np.cos(kind) + y * np.sin(kind)) / (3 + kind % 5))
    grey = 120 + 50 * wave + rng.normal(0, 8, wave.shape)
    colour = np.stack([grey * share for share in rng.uniform(0.6, 1.1, 3)], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)).save(buffer, "WEBP", quality=70)
    return Thumbnail(buffer.getvalue(), side, height)


def element(page: str, name: str) -> str:
    """Return the content of a script element of a page."""
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def page_data(run: Path) -> dict[str, Any]:
    """Build the page of a run and return the data in it."""
    content: dict[str, Any] = json.loads(element(rebuild_review(run).read_text("ascii"), "data"))
    return content
