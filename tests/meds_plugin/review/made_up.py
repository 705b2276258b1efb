"""Run folders made up of nothing, as many images as a test wants."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from meds_plugin.review.heatmaps import Heatmaps
from meds_plugin.review.store import Pictures, save_pictures
from meds_plugin.review.thumbnails import Thumbnail, side_for
from meds_plugin.utils.atomic import write_csv, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

THRESHOLD = 0.5
_KINDS = 24  # different thumbnails; the others repeat them


def make_run(
    folder: Path,
    names: Sequence[str],
    *,
    categories: Sequence[str] = ("wood",),
    probability: bool = False,
    pictures: bool = True,
    exclude: str | None = None,
    root: Path | None = None,
) -> Path:
    """Write a finished run: scores fall evenly from 1 to 0, categories take turns.

    Args:
        folder: Where to.
        names: The training images, from most to least suspicious.
        categories: Their categories, in turn.
        probability: Give each image one, its score squared.
        pictures: Keep thumbnails and heatmaps.
        exclude: The run's ``data.exclude``.
        root: The folder that the images are in; default: one that is not there.
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
    chosen = [{**last, "category": name} for name in categories]
    write_csv(folder / "selection.csv", list(chosen[0]), chosen)
    source = {"_target_": "meds_plugin.data.readers.folder.read_folder", "_partial_": True}
    source |= {"root": str(root or folder / "no such folder")}
    data = {"source": source, "image_size": 32, "crop": 16, "max_pixels": 1e8, "exclude": exclude}
    config = {"data": data, "backbone": {"detector": None}}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
    if pictures:
        save_pictures(folder, _pictures(count))
    return folder


def make_metrics(run: Path, value: float, *, seed: int = 0) -> None:
    """Write metrics of one category that are all the same."""
    values = {"I-AUROC": value, "P-AP": None}
    content = {
        "mean": values,
        "categories": {"wood": values},
        "ranking": {"auprc": None},
        "protocol": {"seed": seed, "steps_done": 9, "total_steps": 9},
    }
    write_json(run / "metrics.json", content)


def _pictures(count: int) -> Pictures:
    rng = np.random.default_rng(0)
    side = side_for(count)
    kinds = [_thumbnail(rng, side, kind) for kind in range(min(count, _KINDS))]
    thumbs = [kinds[place % len(kinds)] for place in range(count)]
    bumps = rng.integers(0, 24, (count, 2))
    rows, columns = np.mgrid[:28, :28]
    distance = np.hypot(rows - bumps[:, 0, None, None], columns - bumps[:, 1, None, None])
    maps = np.clip(255 - 40 * distance, 0, 255).astype(np.uint8)
    return Pictures(thumbs, Heatmaps(maps, 0.02, 0.75), (0.0625, 0.0625, 0.9375, 0.9375))


def _thumbnail(rng: np.random.Generator, side: int, kind: int) -> Thumbnail:
    """Draw stripes with grain: about as many bytes as a photograph of a surface has."""
    height = side if kind % 3 else side * 3 // 4
    x, y = np.meshgrid(np.arange(side), np.arange(height))
    wave = np.sin((x * np.cos(kind) + y * np.sin(kind)) / (3 + kind % 5))
    grey = 120 + 50 * wave + rng.normal(0, 8, wave.shape)
    colour = np.stack([grey * share for share in rng.uniform(0.6, 1.1, 3)], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)).save(buffer, "WEBP", quality=70)
    return Thumbnail(buffer.getvalue(), side, height)
