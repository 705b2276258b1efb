"""Pairs masks with images by the names of their files, and tells by masks what is defective."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import images_in, is_folder
from meds_plugin.data.masks import read_mask
from meds_plugin.data.samples import Problem, Sample
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from meds_plugin.data.samples import Split

__all__ = ["labelled_by_masks", "mask_folders", "masks_by_stem"]


def masks_by_stem(ground_truth: Path, kind: str, images: Sequence[Path]) -> dict[str, Path]:
    """Return the masks of a kind of defect, ``<kind>/<stem>.*`` or ``<kind>/<stem>_mask.*``.

    Args:
        ground_truth: The category's folder of masks.
        kind: The name of the folder in it.
        images: Those of the kind.

    Returns:
        The masks by the stem of their image; none if there is no folder of masks.

    Raises:
        UserError: If a mask is missing, or files differ only in their ending.
    """
    if not is_folder(ground_truth):
        return {}
    files = _by_stem(images_in(ground_truth / kind))
    names = {stem: f"{stem}_mask" if f"{stem}_mask" in files else stem for stem in _by_stem(images)}
    _require(names, [stem for stem, name in names.items() if name not in files], ground_truth, kind)
    return {stem: files[name] for stem, name in names.items()}


def mask_folders(
    ground_truth: Path, kind: str, images: Sequence[Path]
) -> dict[str, tuple[Path, ...]]:
    """Do as `masks_by_stem` with masks of several files, all in a folder ``<kind>/<stem>``."""
    if not is_folder(ground_truth):
        return {}
    found = {stem: tuple(images_in(ground_truth / kind / stem)) for stem in _by_stem(images)}
    missing = [stem for stem, files in found.items() if not files]
    _require(found, missing, ground_truth, kind, ending="/*.png")
    return found


def labelled_by_masks(
    split: Split, folders: Iterable[Path], names: re.Pattern[str], ending: str, category: str
) -> dict[Path, list[Sample]]:
    """List images that lie beside their masks; those whose mask is not all zero are defective.

    Masks are opened, images are not.

    Args:
        split: Its first folder is the one that paths are relative to. Images without a readable
            mask are added to its problems, what is not read to its notes.
        folders: Where to look.
        names: The stems of images.
        ending: What follows them in the stem of a mask.
        category: Of the images.

    Returns:
        The images by folder, each in natural order.

    Raises:
        UserError: If a folder cannot be listed, or files differ only in their ending.
    """
    found: dict[Path, list[Sample]] = {}
    for folder in folders:
        files = _by_stem(images_in(folder))
        stems = [stem for stem in files if names.fullmatch(stem)]
        masks = {stem: files[stem + ending] for stem in stems if stem + ending in files}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            answers = dict(zip(masks, pool.map(_is_marked, masks.values()), strict=True))
        found[folder] = []
        for stem in stems:
            path = files[stem].relative_to(split.folders[0]).as_posix()
            lost = f"{shown(str(files[stem]))} has no {stem}{ending}.*: add its mask or remove it"
            answer = answers.get(stem, lost)
            if isinstance(answer, str):
                split.problems.append(Problem(path, answer))
                continue
            mask, defect = (masks[stem], "defect") if answer else (None, None)
            label = "marked mask" if answer else "empty mask"
            found[folder].append(Sample(path, category, defect, files[stem], mask, label=label))
        read = {*stems, *(stem + ending for stem in stems)}
        if unread := [shown(file.name) for stem, file in files.items() if stem not in read]:
            split.notes.append(f"{folder.name}: not read: {first_few(unread)}")
    return found


def _is_marked(mask: Path) -> bool | str:
    """Return whether any pixel is not 0, or why the mask cannot be read."""
    try:
        return read_mask(mask, values="nonzero").getbbox() is not None
    except UserError as error:
        return str(error)


def _require(
    all_of: Iterable[str], missing: Sequence[str], truth: Path, kind: str, ending: str = "_mask.png"
) -> None:
    if missing:
        msg = (
            f"{truth / kind} lacks the masks of {len(missing)} of {len(list(all_of))} images, "
            f"first {missing[0]}{ending}; add them, or remove {truth} to go without masks"
        )
        raise UserError(msg)


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
