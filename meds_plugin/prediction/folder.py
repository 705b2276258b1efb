"""The folder that predictions are written into: names of files, and the tables."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from meds_plugin.utils.atomic import write_bytes, write_csv, write_json
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PredictionFolder", "Row", "picture_name"]

KINDS = ("heatmaps", "masks")
_LONGEST = (
    200  # bytes of a name; file systems take 255, and while it is written it has a longer one
)


class Row(NamedTuple):
    """A row of ``scores.csv``.

    Attributes:
        path: Name of the image, relative to the folder of images.
        category: Its category, where it is known.
        score: Higher = more anomalous; empty for an image that cannot be judged, as what follows.
        label: 1 for defective.
        threshold: Above it, an image is defective.
        error: Why the image cannot be judged.
    """

    path: str
    category: str | None = None
    score: str | None = None
    label: int | None = None
    threshold: str | None = None
    error: str | None = None


class PredictionFolder:
    """Where results go.

    Args:
        path: The folder; made when something is written.
        overwrite: Take the place of results that are there.

    Raises:
        UserError: If it is no folder, or holds something and is not to be overwritten.
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
        self._earlier = self._pictures() if taken else set()

    @property
    def scores(self) -> Path:
        """The table of all images."""
        return self.path / "scores.csv"

    def write_picture(self, kind: str, name: str, content: bytes) -> None:
        """Write a PNG file of an image.

        Args:
            kind: One of `KINDS`.
            name: The image's name; folders in it are kept.
            content: The file's.
        """
        file = self.path / kind / picture_name(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, content)
        except OSError as error:
            raise self._unwritable(error) from error
        self._earlier.discard(file)

    def finish(self, rows: Sequence[Row], summary: dict[str, Any]) -> None:
        """Write the tables, and remove pictures of earlier results that are not written anew."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self._earlier:
                file.unlink(missing_ok=True)
            write_csv(self.scores, Row._fields, (row._asdict() for row in rows))
            write_json(self.path / "summary.json", summary)
        except OSError as error:
            raise self._unwritable(error) from error

    def _pictures(self) -> set[Path]:
        """Return the pictures that earlier results name; nothing else is ours to remove."""
        try:
            with self.scores.open(encoding="utf-8", newline="") as file:
                names = [str(row["path"]) for row in csv.DictReader(file) if row["score"]]
        except (OSError, ValueError, KeyError, csv.Error):
            return set()
        plain = [name for name in names if is_inside(name)]
        return {self.path / kind / picture_name(name) for kind in KINDS for name in plain}

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"output={self.path} cannot be written ({error.strerror}): give another")


def picture_name(name: str) -> str:
    """Return the name of an image's picture: its own with ``.png`` behind, so that no two meet.

    Args:
        name: POSIX, relative. A name that would be too long gets a hash in place of its end.

    Raises:
        ValueError: If it leads out of the folder.
    """
    if not is_inside(name):
        msg = f"{name!r} leads out of the folder"
        raise ValueError(msg)
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
