"""The folder that predictions are written to: file names, images and tables."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from meds_plugin.utils.atomic import write_bytes, write_csv, write_json
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PredictionFolder", "ScoreRow", "png_name"]

KINDS = ("heatmaps", "masks")
# Bytes of a name: file systems take 255, and a file has a longer name while it is written.
_LONGEST = 200


class ScoreRow(NamedTuple):
    """A row of ``scores.csv``.

    Attributes:
        path: Name of the image, relative to the folder of images.
        category: Its category, where known.
        score: Higher = more anomalous; empty, like label and threshold, for an image that
            cannot be scored.
        label: 1 = defective, 0 = normal.
        threshold: Scores above it mean defective.
        error: Why the image cannot be scored.
    """

    path: str
    category: str | None = None
    score: str | None = None
    label: int | None = None
    threshold: str | None = None
    error: str | None = None


class PredictionFolder:
    """The folder of results.

    Args:
        path: The folder; made when something is written.
        overwrite: Replace earlier results.

    Raises:
        UserError: If it is not a folder, or is not empty and ``overwrite`` is false.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        try:
            taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        except OSError as error:
            raise self._unwritable(error) from error
        if taken and not path.is_dir():
            msg = f"output={path} is a file: give a folder"
            raise UserError(msg)
        if taken and not overwrite:
            msg = f"output={path} is not empty: give another folder, or overwrite=true"
            raise UserError(msg)
        self._earlier = self._earlier_images() if taken else set()

    @property
    def scores(self) -> Path:
        """The table of all images."""
        return self.path / "scores.csv"

    def write_image(self, kind: str, name: str, content: bytes) -> None:
        """Write a heatmap or a mask.

        Args:
            kind: One of `KINDS`.
            name: The input image's name, with its folders.
            content: The PNG file.
        """
        file = self.path / kind / png_name(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, content)
        except OSError as error:
            raise self._unwritable(error) from error
        self._earlier.discard(file)

    def finish(self, rows: Sequence[ScoreRow], summary: dict[str, Any]) -> None:
        """Write the tables, and remove images of earlier results that were not replaced."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self._earlier:
                file.unlink(missing_ok=True)
            write_csv(self.scores, ScoreRow._fields, (row._asdict() for row in rows))
            write_json(self.path / "summary.json", summary)
        except OSError as error:
            raise self._unwritable(error) from error

    def _earlier_images(self) -> set[Path]:
        """Return the images that earlier results name; nothing else is ours to remove."""
        try:
            with self.scores.open(encoding="utf-8", newline="") as file:
                names = [str(row["path"]) for row in csv.DictReader(file) if row["score"]]
        except (OSError, ValueError, KeyError, csv.Error):
            return set()
        plain = [name for name in names if is_inside(name)]
        return {self.path / kind / png_name(name) for kind in KINDS for name in plain}

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"output={self.path} cannot be written ({error.strerror}): give another")


def png_name(name: str) -> str:
    """Return the file name of an image's heatmap or mask: its own plus ``.png``, so none collide.

    Args:
        name: POSIX, relative, without ``..``. Names that would be too long end in a hash.
    """
    path = PurePosixPath(name)
    last = path.name
    if len(last.encode()) > _LONGEST:
        digest = hashlib.blake2b(last.encode(), digest_size=16).hexdigest()
        last = f"{path.name.encode()[: _LONGEST - 40].decode(errors='ignore')}~{digest}"
    return str(path.with_name(f"{last}.png"))


def is_inside(name: str) -> bool:
    """Whether a relative POSIX path stays below its folder."""
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts
