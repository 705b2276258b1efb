"""``review.npz``: what the page shows of the images, kept so that it can be built again."""

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

__all__ = ["STORE", "Pictures", "load_pictures", "save_pictures"]

STORE = "review.npz"


@dataclass(frozen=True)
class Pictures:
    """What is shown of the training images, in the manifest's order.

    Attributes:
        thumbnails: One an image.
        heatmaps: One an image, or ``None`` where none were kept.
        window: Left, top, right and bottom edge of what a map covers, as shares of the image.
    """

    thumbnails: Sequence[Thumbnail]
    heatmaps: Heatmaps | None
    window: tuple[float, float, float, float]


def save_pictures(run: Path, pictures: Pictures) -> None:
    """Write ``review.npz`` into a run's folder."""
    thumbs, maps = pictures.thumbnails, pictures.heatmaps
    arrays: dict[str, Any] = {
        "bytes": np.frombuffer(b"".join(thumb.data for thumb in thumbs), np.uint8),
        "lengths": np.array([len(thumb.data) for thumb in thumbs], np.int64),
        "sizes": np.array([thumb[1:] for thumb in thumbs], np.int64).reshape(-1, 2),
        "window": np.array(pictures.window),
    }
    if maps is not None:
        arrays |= {"maps": maps.values, "scale": np.array([maps.low, maps.high])}
    write_arrays(run / STORE, arrays)


def load_pictures(run: Path, count: int) -> Pictures | None:
    """Read ``review.npz``; ``None`` where the run has none.

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
    fits = len(ends) == len(sizes) == count and (maps is None or len(maps.values) == count)
    if not fits or (count and ends[-1] != len(data)):
        msg = f"{path} belongs to other images than manifest.csv: remove it and build again"
        raise UserError(msg)
    thumbs = [
        Thumbnail(data[start:end], width, height)
        for start, end, (width, height) in zip([0, *ends], ends, sizes, strict=False)
    ]
    return Pictures(thumbs, maps, (left, top, right, bottom))
