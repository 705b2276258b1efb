"""Builds ``review.html`` of a run, at its end or later."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meds_plugin.review.heatmaps import quantize_maps
from meds_plugin.review.likeness import find_likeness
from meds_plugin.review.page import write_page
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.store import ReviewImages, load_review_images, save_review_images
from meds_plugin.review.thumbnails import make_thumbnails
from meds_plugin.review.training_images import find_training_images
from meds_plugin.runs.read import read_embeddings, read_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.data.dataset import ImageDataset
    from meds_plugin.review.ranked_run import RankedRun

__all__ = ["rebuild_review", "write_review"]


def write_review(
    run: Path,
    dataset: ImageDataset,
    maps: Tensor,
    *,
    cut_short: str | None = None,
    progress: bool = False,
) -> None:
    """Write the page of a run that has just written its ranking, and store what it shows.

    Args:
        run: The run's folder.
        dataset: The N training images.
        maps: ``[N, h, w]`` their anomaly maps, higher = more anomalous.
        cut_short: Says that the training ended early, for the page's head.
        progress: Show a progress bar while images are read.
    """
    thumbnails = make_thumbnails(dataset, progress=progress)
    images = ReviewImages(thumbnails, quantize_maps(maps), dataset.preprocess.window)
    save_review_images(run, images)
    _write_page(run, read_ranked_run(run), images, cut_short)


def rebuild_review(
    run: Path,
    ranked: RankedRun | None = None,
    *,
    suspicion: Sequence[float] | None = None,
    headline: str | None = None,
) -> Path:
    """Build the page of a finished run again from the thumbnails and heatmaps it stored.

    If it stored none, thumbnails are made from the image files, and there are no heatmaps.

    Args:
        run: The run's folder.
        ranked: What the page says of its training images; default: what its ranking says.
        suspicion: See `write_page`.
        headline: Likewise.

    Returns:
        The page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    ranked = ranked or read_ranked_run(run)
    images = load_review_images(run, len(ranked.manifest))
    if images is None:
        dataset = find_training_images(run, ranked.manifest)
        thumbnails = make_thumbnails(dataset, progress=sys.stderr.isatty())
        images = ReviewImages(thumbnails, None, dataset.preprocess.window)
    known = (run / "metrics.json").is_file()
    cut_short = read_metrics(run)["cut_short"] if known else None
    return _write_page(run, ranked, images, cut_short, suspicion, headline)


def _write_page(
    run: Path,
    ranked: RankedRun,
    images: ReviewImages,
    cut_short: str | None,
    suspicion: Sequence[float] | None = None,
    headline: str | None = None,
) -> Path:
    embeddings = read_embeddings(run, len(ranked.manifest))
    return write_page(
        run,
        ranked,
        images,
        likeness=None if embeddings is None else find_likeness(ranked, embeddings),
        suspicion=suspicion,
        headline=headline,
        cut_short=cut_short,
    )
