"""``review.npz``: the thumbnails and heatmaps of a run, from which its page can be built again."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.review.heatmaps import Heatmaps
from meds_plugin.review.thumbnails import Thumbnail
from meds_plugin.utils.atomic import write_arrays
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["STORE", "ReviewImages", "load_review_images", "save_review_images"]

STORE = "review.npz"


@dataclass(frozen=True)
class ReviewImages:
    """What the page shows of the N training images, in the manifest's order.

    Attributes:
        thumbnails: One per image.
        heatmaps: One per image; ``None``: the run stored none.
        window: Left, top, right and bottom edge of the area that a heatmap covers, as fractions of
            the image.
    """

    thumbnails: Sequence[Thumbnail]
    heatmaps: Heatmaps | None
    window: tuple[float, float, float, float]


def save_review_images(run: Path, images: ReviewImages) -> None:
    """Write ``review.npz`` into a run's folder."""
    thumbs, maps = images.thumbnails, images.heatmaps
    arrays: dict[str, Any] = {
        "bytes": np.frombuffer(b"".join(thumb.data for thumb in thumbs), np.uint8),
        "lengths": np.array([len(thumb.data) for thumb in thumbs], np.int64),
        "sizes": np.array([thumb[1:] for thumb in thumbs], np.int64).reshape(-1, 2),
        "window": np.array(images.window),
    }
    if maps is not None:
        arrays |= {"maps": maps.values, "scale": np.array([maps.low, maps.high])}
    write_arrays(run / STORE, arrays)


def load_review_images(run: Path, count: int) -> ReviewImages | None:
    """Read ``review.npz``; ``None`` if the run has none.

    Args:
        run: The run's folder.
        count: Number of its training images.

    Raises:
        UserError: If the file is damaged or belongs to other images.
    """
    path = run / STORE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = archive["bytes"].tobytes()
            ends = np.cumsum(archive["lengths"]).tolist()
            sizes = archive["sizes"].tolist()
            left, top, right, bottom = archive["window"].tolist()
            maps = None
            if "maps" in archive.files:
                low, high = archive["scale"].tolist()
                maps = Heatmaps(np.asarray(archive["maps"], np.uint8), low, high)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        msg = f"{path} is damaged ({error}): remove it and build the page again"
        raise UserError(msg) from error
    matches = len(ends) == len(sizes) == count and (maps is None or len(maps.values) == count)
    if not matches or (count and ends[-1] != len(data)):
        msg = f"{path} and manifest.csv list different images: remove it and build the page again"
        raise UserError(msg)
    thumbs = [
        Thumbnail(data[start:end], width, height)
        for start, end, (width, height) in zip([0, *ends], ends, sizes, strict=False)
    ]
    return ReviewImages(thumbs, maps, (left, top, right, bottom))
