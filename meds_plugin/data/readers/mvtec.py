"""Reads data sets in the layout of MVTec AD or MVTec AD 2: `data=mvtec`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import IMAGE_SUFFIXES, folders_in, images_in, is_folder
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import category_notes
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.mask_files import masks_by_stem
from meds_plugin.data.readers.part_folders import is_normal, normal_folders, part_folder
from meds_plugin.data.samples import Sample, Split
from meds_plugin.data.words import doubt, part_of
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from meds_plugin.data.readers.csv_labels import NormalWords

    # The folder of masks, the kind of defect and its images give the masks by the images' stems.
    Masks: TypeAlias = Callable[
        [Path, str, Sequence[Path]], Mapping[str, Path] | Mapping[str, tuple[Path, ...]]
    ]

__all__ = ["categories_in", "read_categories", "read_category", "read_mvtec"]

_LAYOUT = "CATEGORY/train/good/*.png and CATEGORY/test/TYPE/*.png"
_PRIVATE = ("test_private", "test_private_mixed")


def read_mvtec(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    normal: NormalWords = None,
) -> Split:
    """List the images below ``<root>/<category>/{train/good, test/<type>, ground_truth/<type>}``.

    In place of ``good``, both folders may have another usual name for normal (``OK``, see
    `words.meaning`), or what ``normal`` names. A mask has the stem of its image, with or without
    ``_mask`` at the end. A category without a folder ``ground_truth`` has no masks; with one, every
    defective image needs a mask. In MVTec AD 2, ``test_public`` takes the place of ``test`` and
    holds ``ground_truth``; validation and private images are not read. Names that begin with a dot
    are ignored, and numbers in names sort by value. Images are not opened.

    Args:
        root: The data set's folder, or that of a single category, which is then named after it.
            Paths of images are relative to it either way.
        categories: Which to read, in any order; ``None``: all.
        normal: The only names of folders that mean normal; ``None``: the usual ones, of which a
            folder may have one.

    Returns:
        The images by category and name. Notes name what is missing or not read.

    Raises:
        UserError: If a folder, category, training image or mask is missing, if it is not certain
            which folder holds normal images, or if the masks are those of MVTec LOCO AD.
    """
    folder = data_folder(root, _LAYOUT)
    words = None
    if normal is not None:
        words = [str(w) for w in ([normal] if isinstance(normal, str | int | float) else normal)]
        if not words:
            msg = "data.normal=[] names no folder: name those of normal images, or leave it out"
            raise UserError(msg)
    found = categories_in(folder, words)
    if not found or guess_layout(folder) == "mvtec_loco":
        raise UserError(wrong_layout(folder, "mvtec", _LAYOUT))
    return read_categories(folder, found, categories, partial(read_category, normal=words))


def read_categories(
    root: Path,
    found: Mapping[str, Path],
    categories: Sequence[str] | str | None,
    read: Callable[[Path, Path, str], Split],
) -> Split:
    """List the images of several categories.

    Args:
        root: The data set's folder.
        found: The folders of all categories, by name.
        categories: Which to read; ``None``: all.
        read: Lists those of one, as `read_category`.

    Raises:
        UserError: If a category is not there, or as ``read``.
    """
    split = Split(train=[], test=[], folders=(root,))
    for name in chosen_categories(categories, found, f"data.root={root}"):
        each = read(root, found[name], name)
        split.train.extend(each.train)
        split.test.extend(each.test)
        split.notes.extend(each.notes)
    return split


def categories_in(root: Path, normal: Sequence[str] | None = None) -> dict[str, Path]:
    """Return the folders of categories in MVTec's layout, by name; there may be none.

    Args:
        root: Their folder, or that of a single category.
        normal: See `is_normal`.

    Raises:
        UserError: If the root cannot be listed.
    """
    train = part_folder(root, "train")
    if is_folder(train) if normal else normal_folders(train):
        # Not `resolve`: a link keeps its own name.
        return {Path(os.path.normpath(root.absolute())).name: root}
    return {path.name: path for path in folders_in(root) if _is_category(path)}


def _is_category(folder: Path) -> bool:
    parts = (part_folder(folder, "train"), part_folder(folder, "test"), folder / "test_public")
    return any(map(is_folder, parts))


def read_category(
    root: Path,
    folder: Path,
    name: str,
    *,
    normal: Sequence[str] | None = None,
    validation: bool = False,
    masks: Masks = masks_by_stem,
) -> Split:
    """List the images of one category (see `read_mvtec`).

    Args:
        root: The folder that names of images are relative to.
        folder: The category's folder, below the root or the root itself.
        name: The category's name.
        normal: See `is_normal`.
        validation: Whether normal validation images are training images, too.
        masks: Finds the masks of a kind of defect.

    Raises:
        UserError: If training images or masks are missing, or if it is not certain which folder
            holds normal images.
    """

    def sample(
        image: Path, defect: str | None = None, mask: Path | tuple[Path, ...] | None = None
    ) -> Sample:
        path = image.relative_to(root).as_posix()
        return Sample(path, name, defect, image, mask, label=image.parent.name)

    tests = part_folder(folder, "test")
    second = not is_folder(tests) and is_folder(folder / "test_public")
    if second:
        tests = folder / "test_public"
    truth = (tests if second else folder) / "ground_truth"
    parts = [part_folder(folder, "train"), *(_validation(folder) if validation else ())]
    trained = [path for part in parts for path in normal_folders(part, normal)]
    train = [sample(image) for path in trained for image in images_in(path)]
    kinds_of_test = [path for path in folders_in(tests) if path != truth]
    if normal is None:
        _require_certainty(trained)
    if not train:
        raise UserError(_nothing_to_train_on(name, parts[0], trained, normal))
    if normal is None:
        _require_certainty(kinds_of_test)
    test: list[Sample] = []
    for kind in kinds_of_test:
        images = images_in(kind)
        if is_normal(kind.name, normal):
            test += [sample(image) for image in images]
            continue
        found = masks(truth, kind.name, images)
        test += [sample(image, kind.name, found.get(image.stem)) for image in images]
    missing = truth.relative_to(folder).as_posix()
    deeper = [p for p in (*trained, *kinds_of_test) if folders_in(p)]
    unread = _unread(folder, parts, trained, tests, deeper)
    notes = category_notes(name, test, missing)
    if unread:
        notes.append(f"category {name}: not read: {', '.join(unread)}")
    return Split(train, test, notes=notes)


def _validation(folder: Path) -> list[Path]:
    return [path for path in folders_in(folder) if part_of(path.name) == "val"]


def _nothing_to_train_on(
    category: str, part: Path, trained: Sequence[Path], normal: Sequence[str] | None
) -> str:
    kinds = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
    others = ", ".join(path.name for path in folders_in(part) if path not in trained)
    beside = f", rename one of the folders beside it ({others})" if others else ""
    if others:
        beside += " or name it in data.normal of data=mvtec,"
    where = trained[0] if trained else part / (normal or ("good",))[0]
    return (
        f"category {category}: {where} has no training images ({kinds}); "
        f"add some{beside} or leave it out of data.categories"
    )


def _require_certainty(kinds: Sequence[Path]) -> None:
    """Refuse folders whose names leave open which of them hold normal images.

    Raises:
        UserError: If so.
    """
    if why := doubt([path.name for path in kinds], of_defect=True, needed=True):
        msg = (
            f"the folders in {kinds[0].parent}: {why}; name them good, or by their defect, or give "
            "data=mvtec data.normal=NAME"
        )
        raise UserError(msg)


def _unread(
    folder: Path,
    parts: Sequence[Path],
    trained: Sequence[Path],
    tests: Path,
    deeper: Sequence[Path],
) -> list[str]:
    """Return which folders of a category are not read."""
    names = [f"{part.name}/{p.name}" for part in parts for p in folders_in(part)]
    read = {f"{path.parent.name}/{path.name}" for path in trained}
    names = [name for name in names if name not in read]
    names += [path.name for path in _validation(folder) if path not in parts]
    names += [name for name in _PRIVATE if is_folder(folder / name)]
    if tests.name != "test_public" and is_folder(folder / "test_public"):
        names.append("test_public")
    names += [f"{p.name}/*" for p in (*parts, tests) if images_in(p)]
    return [*names, *(f"{p.parent.name}/{p.name}/*/" for p in deeper)]
