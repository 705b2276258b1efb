"""Made-up runs on image files that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from meds_plugin.data.check import content_digest
from meds_plugin.review.store import ReviewImages, load_review_images, save_review_images
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.atomic import write_csv
from tests.meds_plugin.review.made_up import make_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZE = (60, 40)  # width and height


def make_photos(root: Path, names: Sequence[str]) -> None:
    """Write images that all differ."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((SIZE[1], SIZE[0], 3), 7 * number % 256, np.uint8)
        Image.fromarray(pixels).save(file, "PNG")


def photo_run(folder: Path, names: Sequence[str], *, tests: Sequence[str] = ()) -> Path:
    """Write a finished run on files in ``folder/photos``, and those.

    Args:
        folder: Where the run and the photos go.
        names: The training images, from most to least suspicious; repeats are ``NAME#2``.
        tests: Names of test images, below ``test/bad``; some may be training images, too.
    """
    root = folder / "photos"
    make_photos(root, list(dict.fromkeys([*map(_original, names), *tests])))
    run = make_run(folder / "run", names, root=root)
    config = OmegaConf.load(run / "config.yaml")
    config.data.root = str(root)
    if tests:
        config.data.source.test = "test"
    OmegaConf.save(config, run / "config.yaml")
    rows = [
        row | {"digest": content_digest((root / _original(row["path"])).read_bytes())}
        for row in read_rows(run / "manifest.csv")
    ]
    write_csv(run / "manifest.csv", list(rows[0]), rows)
    return run


def heat(run: Path, name: str, cells: Sequence[tuple[int, int, int]]) -> None:
    """Give an image a heatmap with some values by row and column of 28 x 28 cells."""
    names = [row["path"] for row in read_rows(run / "manifest.csv")]
    stored = load_review_images(run, len(names))
    assert stored is not None
    assert stored.heatmaps is not None
    maps = stored.heatmaps.values[names.index(name)]
    maps[:] = 0
    for row, column, value in cells:
        maps[row, column] = value
    save_review_images(run, ReviewImages(stored.thumbnails, stored.heatmaps, stored.window))


def decide(file: Path, decisions: dict[str, str]) -> Path:
    """Write a file of decisions, with notes where a decision has one after a colon."""
    parts = {name: word.partition(":") for name, word in decisions.items()}
    rows = [{"path": name, "decision": p[0], "note": p[2]} for name, p in parts.items()]
    write_csv(file, ("path", "decision", "note"), rows)
    return file


def _original(name: str) -> str:
    return re.sub(r"#\d+$", "", name)
