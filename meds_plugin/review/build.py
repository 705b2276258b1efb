"""From a run to the files of its review: the page, and what it is built from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meds_plugin.review.entries import read_review
from meds_plugin.review.heatmaps import on_one_scale
from meds_plugin.review.page import build_page
from meds_plugin.review.sources import dataset_of
from meds_plugin.review.store import Pictures, load_pictures, save_pictures
from meds_plugin.review.thumbnails import thumbnails
from meds_plugin.utils.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.data.dataset import ImageDataset

__all__ = ["rebuild_review", "write_review"]

_PAGE = "review.html"


def write_review(run: Path, dataset: ImageDataset, maps: Tensor, *, progress: bool = False) -> None:
    """Write the page of a run that has just written its ranking, and what it is built from.

    Args:
        run: The run's folder.
        dataset: The training images.
        maps: ``[N, h, w]`` their anomaly maps, higher = more anomalous.
        progress: Show a bar while images are read.
    """
    window = dataset.preprocess.window
    pictures = Pictures(thumbnails(dataset, progress=progress), on_one_scale(maps), window)
    save_pictures(run, pictures)
    _write(run, pictures)


def rebuild_review(run: Path) -> Path:
    """Build the page of a finished run again.

    From what the run kept; where it kept nothing, from the image files, without heatmaps.

    Args:
        run: The run's folder.

    Returns:
        The page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    reviewed = read_review(run)
    pictures = load_pictures(run, len(reviewed.manifest))
    if pictures is None:
        dataset = dataset_of(run, reviewed.manifest)
        thumbs = thumbnails(dataset, progress=sys.stderr.isatty())
        pictures = Pictures(thumbs, None, dataset.preprocess.window)
    return _write(run, pictures)


def _write(run: Path, pictures: Pictures) -> Path:
    page = run / _PAGE
    write_text(page, build_page(run, read_review(run), pictures))
    return page
