"""Puts the images that a review dropped aside: copied, linked or moved into a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from meds_plugin.data.check import content_digest
from meds_plugin.data.faults import shown
from meds_plugin.review.decisions import read_drops
from meds_plugin.review.exchange.entries import inner_path, png_bytes
from meds_plugin.review.quarantine.manifest import MANIFEST, PutAside, read_manifest, write_manifest
from meds_plugin.review.quarantine.transfers import (
    Transfer,
    carry_out,
    check_transfers,
    lies_in,
    require_no_faults,
)
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.training_images import find_source_images
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meds_plugin.review.decision_file import Decision
    from meds_plugin.review.quarantine.manifest import How
    from meds_plugin.review.ranked_run import RankedImage
    from meds_plugin.review.training_images import SourceImages

__all__ = ["Quarantined", "quarantine"]


class Quarantined(NamedTuple):
    """What was put aside.

    Attributes:
        files: Number of files.
        left: Names of dropped images that were not moved, because they are test images.
    """

    files: int
    left: list[str]


def quarantine(run: Path, decisions: Path, folder: Path, how: How = "copy") -> Quarantined:
    """Put the files of dropped images into a folder, by their names, with a manifest.

    The manifest is written before the first file is touched. Given again, the same command finishes
    what was interrupted, and takes what was dropped since. A repeat that a noise protocol made
    stands for its original's file. Images that are made in code are written as PNG files.

    A file of the data set's test images is never moved, whatever noise protocol trained on it: the
    next run would lack it in its test.

    Args:
        run: The run that was reviewed.
        decisions: The reviewer's file; see `read_drops`.
        folder: Where to; outside the data set, whose next reader would find the files there.
        how: Copies leave the files where they are; so do links, which lead to them.

    Raises:
        UserError: As `read_drops` and `find_source_images`; if a file is missing, was changed since
            the run, or cannot be moved or linked, or another is in the way; or the folder is not
            fit or was filled in another way. Nothing was touched then, unless writing failed.
    """
    images = read_ranked_run(run).images
    drops = read_drops(decisions, images)
    found = find_source_images(run)
    rows = {row.name: row for row in _earlier(folder, how)}
    _require_fit(folder, found.root, how)
    dropped: dict[str, int] = {}  # places in the ranking by the name of the file, rising
    for place, image in enumerate(images):
        if image.path in drops:
            original = found.original(image.path)
            dropped.setdefault(original.path if original else image.path, place)
    left = [name for name in dropped if how == "move" and _is_tested(found, name)]
    aside = [name for name in dropped if name not in left]
    digests = {row["path"]: row.get("digest") or "" for row in read_rows(run / "manifest.csv")}
    faults = (_fault(found, name, how, rows.get(name), digests) for name in aside)
    require_no_faults([fault for fault in faults if fault])
    for name in aside:
        if name not in rows:
            place = dropped[name]
            rows[name] = _row(found, name, how, images[place], place, drops[images[place].path])
    transfers = [
        Transfer(
            Path(row.source) if row.source else _content(found, row.name),
            folder / row.path,
            how,
            row.digest,
        )
        for row in (rows[name] for name in aside)
    ]
    outside = [each.target for each in transfers if not lies_in(folder, each.target.absolute())]
    require_no_faults([f"{shown(str(target))} leads outside {folder}" for target in outside])
    check_transfers(transfers)
    if transfers:
        try:
            write_manifest(folder, rows.values())
        except OSError as error:
            msg = f"{folder} cannot be written ({error.strerror}): give another folder"
            raise UserError(msg) from error
    carry_out(transfers, f"{how} files")
    return Quarantined(len(transfers), left)


def _earlier(folder: Path, how: How) -> list[PutAside]:
    """Return what the folder holds already, which must have got there in the same way."""
    if not (folder / MANIFEST).exists():
        return []
    rows = read_manifest(folder, "--quarantine")
    if other := next((row.how for row in rows if row.how != how), None):
        msg = f"{folder} was filled by {other}, not by {how}: give another folder"
        raise UserError(msg)
    return rows


def _require_fit(folder: Path, root: Path | None, how: How) -> None:
    if root and folder.resolve().is_relative_to(root.resolve()):
        msg = (
            f"--quarantine={folder} lies in the data set's folder: the next run would read it there"
        )
        raise UserError(msg)
    if how == "move" and root is None:
        msg = (
            "the images of this run are generated in code, or belong to an installed package, and "
            "are not moved: leave out --move for copies"
        )
        raise UserError(msg)


def _is_tested(found: SourceImages, name: str) -> bool:
    sample = found.samples.get(name)
    file = sample.image if sample else None
    return isinstance(file, Path) and os.path.realpath(file) in found.tests


def _fault(
    found: SourceImages, name: str, how: How, row: PutAside | None, digests: Mapping[str, str]
) -> str | None:
    """Say why an image cannot be put aside; ``None`` if it can, or is already."""
    sample = found.samples.get(name)
    if sample is None:
        return None if row else f"{shown(name)} is no longer in the data set"
    file = sample.image
    if not isinstance(file, Path):
        return (
            f"{shown(name)} is generated in code and has no file to {how}"
            if how != "copy"
            else None
        )
    if row:
        other = row.source != str(file.absolute())
        return (
            f"{shown(name)} was put there from another place, {shown(row.source)}" * other or None
        )
    if not file.is_file():
        return f"{shown(str(file))} is missing"
    if how == "move" and file.is_symlink():
        return f"{shown(str(file))} is a link, which is not moved"
    if how == "move" and found.root and not lies_in(found.root, file):
        return f"{shown(str(file))} lies outside {found.root} and is not moved"
    if digests.get(name) not in ("", None, content_digest(file.read_bytes())):
        return f"{shown(str(file))} was changed since the run"
    return None


def _row(
    found: SourceImages,
    name: str,
    how: How,
    image: RankedImage,
    place: int,
    decision: Decision,
) -> PutAside:
    """Return the manifest's row of a file, with the reasons of the image that stands for it."""
    file = found.samples[name].image
    return PutAside(
        path=inner_path(name, png=not isinstance(file, Path)),
        source=str(file.absolute()) if isinstance(file, Path) else "",
        how=how,
        name=name,
        category=image.category,
        rank=str(place + 1),
        score=f"{image.score:.7g}",
        probability="" if image.probability is None else f"{image.probability:.4f}",
        decision=decision.word,
        note=decision.note,
        digest=content_digest(_content(found, name)),
    )


def _content(found: SourceImages, name: str) -> bytes:
    image = found.samples[name].image
    return image.read_bytes() if isinstance(image, Path) else png_bytes(Image.fromarray(image))
