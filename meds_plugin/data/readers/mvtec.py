"""Reads data sets in the layout of MVTec AD or MVTec AD 2: `data=mvtec`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import IMAGE_SUFFIXES, folders_in, images_in, is_folder
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import category_notes
from meds_plugin.data.readers.layout_guess import wrong_layout
from meds_plugin.data.readers.part_folders import normal_folders, part_folder
from meds_plugin.data.samples import Sample, Split
from meds_plugin.data.words import Meaning, doubt, meaning, part_of
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["categories_in", "read_category", "read_mvtec"]

_LAYOUT = "CATEGORY/train/good/*.png and CATEGORY/test/TYPE/*.png"
_PRIVATE = ("test_private", "test_private_mixed")


def read_mvtec(
    root: str | os.PathLike[str] | None, categories: Sequence[str] | str | None = None
) -> Split:
    """List the images below ``<root>/<category>/{train/good, test/<type>, ground_truth/<type>}``.

    In place of ``good``, both folders may have another usual name for normal (``OK``, see
    `words.meaning`). A mask has the stem of its image, with or without ``_mask`` at the end. A
    category without a folder ``ground_truth`` has no masks; with one, every defective image needs a
    mask. In MVTec AD 2, ``test_public`` takes the place of ``test`` and holds ``ground_truth``;
    validation and private images are not read. Names that begin with a dot are passed over, and
    numbers in names sort by value. Images are not opened.

    Args:
        root: The data set's folder, or that of a single category, which is then named after it.
            Paths of images are relative to it either way.
        categories: Which to read, in any order; ``None``: all.

    Returns:
        The images by category and name. Notes name what is missing or not read.

    Raises:
        UserError: If a folder, category, training image or mask is missing, or if it is not certain
            which folder holds normal images.
    """
    folder = data_folder(root, _LAYOUT)
    found = categories_in(folder)
    if not found:
        raise UserError(wrong_layout(folder, "mvtec", _LAYOUT))
    split = Split(train=[], test=[], folders=(folder,))
    for name in chosen_categories(categories, found, f"data.root={folder}"):
        each = read_category(folder, found[name], name)
        split.train.extend(each.train)
        split.test.extend(each.test)
        split.notes.extend(each.notes)
    return split


def categories_in(root: Path) -> dict[str, Path]:
    """Return the folders of categories in MVTec's layout, by name; there may be none.

    Raises:
        UserError: If the root cannot be listed.
    """
    if normal_folders(part_folder(root, "train")):
        # Not `resolve`: a link keeps its own name.
        return {Path(os.path.normpath(root.absolute())).name: root}
    return {path.name: path for path in folders_in(root) if _is_category(path)}


def _is_category(folder: Path) -> bool:
    parts = (part_folder(folder, "train"), part_folder(folder, "test"), folder / "test_public")
    return any(map(is_folder, parts))


def read_category(root: Path, folder: Path, name: str) -> Split:
    """List the images of one category (see `read_mvtec`).

    Args:
        root: The folder that names of images are relative to.
        folder: The category's folder, below the root or the root itself.
        name: The category's name.

    Raises:
        UserError: If training images or masks are missing, or if it is not certain which folder
            holds normal images.
    """

    def sample(image: Path, defect: str | None = None, mask: Path | None = None) -> Sample:
        path = image.relative_to(root).as_posix()
        return Sample(path, name, defect, image, mask, label=image.parent.name)

    tests = part_folder(folder, "test")
    second = not is_folder(tests) and is_folder(folder / "test_public")
    if second:
        tests = folder / "test_public"
    truth = (tests if second else folder) / "ground_truth"
    trained = normal_folders(part_folder(folder, "train")) or [
        part_folder(folder, "train") / "good"
    ]
    _require_certainty(trained)
    train = [sample(image) for path in trained for image in images_in(path)]
    if not train:
        kinds = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        others = ", ".join(p.name for p in folders_in(trained[0].parent) if p not in trained)
        beside = f", rename one of the folders beside it ({others})" if others else ""
        msg = (
            f"category {name}: {trained[0]} has no training images ({kinds}); "
            f"add some{beside} or leave it out of data.categories"
        )
        raise UserError(msg)
    test: list[Sample] = []
    kinds_of_test = [path for path in folders_in(tests) if path != truth]
    _require_certainty(kinds_of_test)
    for kind in kinds_of_test:
        images = images_in(kind)
        if meaning(kind.name, of_defect=True) is Meaning.NORMAL:
            test += [sample(image) for image in images]
            continue
        masks = _masks(truth, kind.name, images)
        test += [sample(image, kind.name, masks.get(image.stem)) for image in images]
    missing = truth.relative_to(folder).as_posix()
    deeper = [p for p in (*trained, *kinds_of_test) if folders_in(p)]
    unread = _unread(folder, trained, tests, deeper)
    notes = category_notes(name, test, missing)
    if unread:
        notes.append(f"category {name}: not read: {', '.join(unread)}")
    return Split(train, test, notes=notes)


def _require_certainty(kinds: Sequence[Path]) -> None:
    """Refuse folders whose names leave open which of them hold normal images.

    Raises:
        UserError: If so.
    """
    if why := doubt([path.name for path in kinds], of_defect=True, needed=True):
        msg = f"the folders in {kinds[0].parent}: {why}; name them good, or by their defect"
        raise UserError(msg)


def _unread(
    folder: Path, trained: Sequence[Path], tests: Path, deeper: Sequence[Path]
) -> list[str]:
    """Return which folders of a category are not read."""
    training = trained[0].parent
    names = [f"{training.name}/{p.name}" for p in folders_in(training) if p not in trained]
    names += [path.name for path in folders_in(folder) if part_of(path.name) == "val"]
    names += [name for name in _PRIVATE if is_folder(folder / name)]
    if tests.name != "test_public" and is_folder(folder / "test_public"):
        names.append("test_public")
    names += [f"{p.name}/*" for p in (training, tests) if images_in(p)]
    return [*names, *(f"{p.parent.name}/{p.name}/*/" for p in deeper)]


def _masks(ground_truth: Path, kind: str, images: list[Path]) -> dict[str, Path]:
    """Return the masks by the stem of their image; none if the category has none."""
    if not is_folder(ground_truth):
        return {}
    files = _by_stem(images_in(ground_truth / kind))
    stems = _by_stem(images)
    names = {stem: f"{stem}_mask" if f"{stem}_mask" in files else stem for stem in stems}
    if missing := [stem for stem, name in names.items() if name not in files]:
        msg = (
            f"{ground_truth / kind} lacks the masks of {len(missing)} of {len(stems)} images, "
            f"first {missing[0]}_mask.png; add them, or remove {ground_truth} to go without masks"
        )
        raise UserError(msg)
    return {stem: files[name] for stem, name in names.items()}


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
