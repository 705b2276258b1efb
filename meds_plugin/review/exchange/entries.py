"""What other tools are told of each training image of a run."""

from __future__ import annotations

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from meds_plugin.data.faults import shown
from meds_plugin.review.exchange.regions import find_regions
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.store import load_review_images
from meds_plugin.review.training_images import find_source_images, find_training_images
from meds_plugin.utils.atomic import write_bytes
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from meds_plugin.data.dataset import ImageDataset
    from meds_plugin.review.decision_file import Decision
    from meds_plugin.review.exchange.regions import Region
    from meds_plugin.review.ranked_run import RankedImage

__all__ = ["Entries", "Entry", "inner_path", "png_bytes", "read_entries"]


@dataclass(frozen=True)
class Entry:
    """A training image.

    Attributes:
        image: What the ranking says of it.
        rank: Its place, 1 = most suspicious.
        file: Its file: that of the data set, or for an image without one a copy as PNG.
        width: In pixels, after EXIF orientation, as the tools show it.
        height: Likewise.
        regions: Where its heatmap is suspicious.
        decision: What a reviewer decided; ``None``: nothing yet.
    """

    image: RankedImage
    rank: int
    file: Path
    width: int
    height: int
    regions: list[Region]
    decision: Decision | None

    def facts(self) -> dict[str, Any]:
        """Return what is known beside file and regions, unknown values left out."""
        image = self.image
        known = {
            "name": image.path,
            "category": image.category,
            "rank": self.rank,
            "score": image.score,
            "selected": image.selected,
            "memory": image.memory,
            "distilled": image.distilled,
            "probability": image.probability,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class Entries:
    """The training images of a run, from most to least suspicious.

    Attributes:
        run: Name of the run.
        entries: One an image.
        gone: Names of images that cannot be read, which have no entry.
        folder: The folder that all their files lie in.
        mapped: Whether the run stored heatmaps.
        output: The folder that they are written to.
    """

    run: str
    entries: list[Entry]
    gone: list[str]
    folder: Path
    mapped: bool
    output: Path

    @property
    def count(self) -> int:
        """Number of ranked images, including those that cannot be read."""
        return len(self.entries) + len(self.gone)

    def relative(self, entry: Entry) -> str:
        """Return the path of an image's file below the folder."""
        return entry.file.relative_to(self.folder).as_posix()


def read_entries(run: Path, decisions: Mapping[str, Decision], output: Path) -> Entries:
    """Gather what is known of a run's training images.

    Args:
        run: The run's folder.
        decisions: By name.
        output: The folder that they are written to; its folder ``images`` takes those without a
            file of their own: made in code, or turned and scaled by a noise protocol.

    Raises:
        UserError: If the folder holds no finished run, its data set is gone, or no image can be
            read, or a copy cannot be written.
    """
    ranked = read_ranked_run(run)
    stored = load_review_images(run, len(ranked.manifest))
    maps = stored.heatmaps if stored else None
    place = {name: index for index, name in enumerate(ranked.manifest)}
    dataset = find_training_images(run, [i.path for i in ranked.images], find_source_images(run))
    count = len(dataset)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looked = pool.map(lambda index: _file_and_size(dataset, index, output), range(count))
        found = list(
            track(looked, description="read images", total=count, enabled=sys.stderr.isatty())
        )
    entries, gone = [], []
    for index, (image, known) in enumerate(zip(ranked.images, found, strict=True)):
        if known is None:
            gone.append(image.path)
            continue
        regions = []
        if stored and maps:
            regions = find_regions(maps.values[place[image.path]], stored.window)
        entries.append(Entry(image, index + 1, *known, regions, decisions.get(image.path)))
    if not entries:
        msg = f"no training image of {run} can be read, for example {shown(gone[0])}: restore them"
        raise UserError(msg)
    folder = Path(os.path.commonpath([entry.file.parent for entry in entries]))
    name = "/".join(run.absolute().parts[-2:])
    return Entries(name, entries, gone, folder, maps is not None, output)


def inner_path(name: str, *, png: bool = False) -> str:
    """Return an image's name as a path below some folder: ``..`` becomes ``__``.

    Args:
        name: POSIX, relative.
        png: Whether a PNG file will lie there, whose suffix the name must then have.
    """
    path = PurePosixPath(*("__" if part == ".." else part for part in name.split("/") if part))
    return f"{path}.png" if png and path.suffix != ".png" else str(path)


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _file_and_size(dataset: ImageDataset, index: int, output: Path) -> tuple[Path, int, int] | None:
    sample = dataset.samples[index]
    try:
        image = dataset.rgb_image(index)
    except UserError:
        return None
    if isinstance(sample.image, Path) and sample.variation is None:
        return sample.image.absolute(), image.width, image.height
    file = output / "images" / inner_path(sample.path, png=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, png_bytes(image))
    except OSError as error:
        msg = f"{file} cannot be written ({error.strerror}): give another folder with --output"
        raise UserError(msg) from error
    return file, image.width, image.height
