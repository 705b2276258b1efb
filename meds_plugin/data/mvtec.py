"""Finds the images of a data set in MVTec's folder layout."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.samples import Sample, Split
from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["read_mvtec"]

_LOG = logging.getLogger(__name__)
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_LAYOUT = "CATEGORY/train/good/*.png and CATEGORY/test/TYPE/*.png"


def read_mvtec(
    root: str | os.PathLike[str] | None, categories: Sequence[str] | str | None = None
) -> Split:
    """List the images below ``<root>/<category>/{train/good, test/<type>, ground_truth/<type>}``.

    A mask belongs to the image with its stem, with or without ``_mask`` at the end. A category
    without a folder ``ground_truth`` has no masks; with one, every defective image needs its own.
    Names that begin with a dot are passed over, and numbers in names sort by value. Images are not
    opened here.

    Args:
        root: The data set's folder, or the folder of a single category, which then is named after
            the folder. Paths of images are relative to it either way.
        categories: Which to read; ``None`` means all. The order does not matter.

    Returns:
        The images of each category after those of the one before, in order of name; within a
        category's test images, normal ones come in their place by name.

    Raises:
        UserError: If a folder, category, training image, test image or mask is missing.
    """
    if root is None:
        msg = f"data.root=DIR is missing: name the folder that holds {_LAYOUT}"
        raise UserError(msg)
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        msg = f"data.root={folder} {what}; name the folder that holds {_LAYOUT}"
        raise UserError(msg)
    found = _categories(folder)
    split = Split(train=[], test=[])
    for name in _chosen(categories, found, folder):
        train, test = _read_category(folder, found[name], name)
        split.train.extend(train)
        split.test.extend(test)
    return split


def _categories(root: Path) -> dict[str, Path]:
    """Return the folders that hold a category, by name."""
    if (root / "train" / "good").is_dir():
        # Not `resolve`: a link is to keep its own name.
        return {Path(os.path.normpath(root.absolute())).name: root}
    folders = _folders(root)
    found = {p.name: p for p in folders if (p / "train").is_dir() or (p / "test").is_dir()}
    if not found:
        inside = [path.name for path in folders]
        seen = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "")
        msg = (
            f"data.root={root} holds no category: expected {_LAYOUT}, "
            f"found {'the folders ' + seen if inside else 'no folders'}; "
            "name the folder above the categories"
        )
        raise UserError(msg)
    return found


def _chosen(
    categories: Sequence[str] | str | None, found: dict[str, Path], root: Path
) -> list[str]:
    if categories is None:
        return sorted(found, key=_natural)
    wanted = {str(n) for n in ([categories] if isinstance(categories, str) else categories)}
    unknown = sorted(wanted - found.keys(), key=_natural)
    if unknown or not wanted:
        there = ", ".join(sorted(found, key=_natural))
        what = f"not in data.root={root}" if unknown else "no category is named"
        msg = f"data.categories=[{','.join(unknown)}]: {what}; there are: {there}"
        raise UserError(msg)
    return sorted(wanted, key=_natural)


def _read_category(root: Path, folder: Path, name: str) -> tuple[list[Sample], list[Sample]]:
    def sample(image: Path, defect: str | None = None, mask: Path | None = None) -> Sample:
        return Sample(image.relative_to(root).as_posix(), name, defect, image, mask)

    train = [sample(image) for image in _images(folder / "train" / "good")]
    test: list[Sample] = []
    for kind in _folders(folder / "test"):
        images = _images(kind)
        if kind.name.casefold() == "good":
            test += [sample(image) for image in images]
            continue
        masks = _masks(folder / "ground_truth", kind.name, images)
        test += [sample(image, kind.name, masks.get(image.stem)) for image in images]
    _require(train, f"{folder / 'train' / 'good'} has no training images", name)
    _require(test, f"{folder / 'test'}/TYPE has no test images to evaluate on", name)
    unread = [path.name for path in _folders(folder / "train") if path.name != "good"]
    if unread:
        _LOG.warning("category %s: only train/good is read, not train/%s", name, unread)
    return train, test


def _require(samples: list[Sample], what: str, category: str) -> None:
    if not samples:
        kinds = " ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
        msg = f"category {category}: {what} ({kinds}); add some or leave it out of data.categories"
        raise UserError(msg)


def _masks(ground_truth: Path, kind: str, images: list[Path]) -> dict[str, Path]:
    """Return the mask of every image by the image's stem; empty if the category has none."""
    if not ground_truth.is_dir():
        return {}
    files = _by_stem(_images(ground_truth / kind))
    stems = _by_stem(images)
    masks = {stem: files.get(f"{stem}_mask") or files.get(stem) for stem in stems}
    missing = [stem for stem, mask in masks.items() if mask is None]
    if missing:
        msg = (
            f"{ground_truth / kind} lacks the masks of {len(missing)} of {len(stems)} images, "
            f"first {missing[0]}_mask.png; add them, or remove {ground_truth} to go without masks"
        )
        raise UserError(msg)
    return {stem: mask for stem, mask in masks.items() if mask is not None}


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        if (first := found.setdefault(file.stem, file)) is not file:
            msg = (
                f"{first} and {file.name} differ only in their ending, so masks cannot be paired; "
                "rename one of them"
            )
            raise UserError(msg)
    return found


def _images(folder: Path) -> list[Path]:
    # A link to nowhere is listed as well, so that the check of all files can name it.
    return [p for p in _visible(folder) if p.suffix.lower() in _SUFFIXES and not p.is_dir()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    """List a folder in natural order; nothing if it is not there."""
    try:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        msg = f"{folder} cannot be listed ({error.strerror}); check its permissions"
        raise UserError(msg) from error
    return [folder / name for name in sorted(names, key=_natural) if not name.startswith(".")]


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sort numbers by value, and equal ones (7, 07) by text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
