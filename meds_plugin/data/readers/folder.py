"""Reads a folder of images in any nesting: `data=folder`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.faults import shown, writable
from meds_plugin.data.file_search import IMAGE_SUFFIXES, search_folder
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.folder_masks import MaskFolder
from meds_plugin.data.readers.folder_patterns import read_patterns
from meds_plugin.data.readers.folder_roles import RoleRules
from meds_plugin.data.readers.layout_guess import known_layout
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.data.words import Meaning, doubt, is_telling, meaning
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import counted, first_few

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from meds_plugin.data.readers.folder_patterns import Parts, Patterns

__all__ = ["read_folder"]

_MOST_NAMED = 8


class _Found(NamedTuple):
    """`FolderContents` by names relative to the root, in parts."""

    images: dict[Parts, Path]
    others: dict[Parts, Path]
    upward: dict[Parts, Path]
    unreadable: dict[Parts, str]


def read_folder(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    test: Patterns = None,
    masks: str | os.PathLike[str] | None = None,
    normal: Patterns = None,
    anomalous: Patterns = None,
    by_directory: bool = False,
) -> Split:
    """List all images in a folder and its subfolders.

    By default, all are training images of unknown quality. Each image has one role:

    | in ``test`` | in ``normal`` | in ``anomalous`` | role |
    |---|---|---|---|
    | no | no | no | training image, unknown |
    | no | yes | no | training image, known to be good (``injected`` false) |
    | any | no | yes | test image with a defect; known defects are never trained on by default |
    | yes | yes | no | normal test image |
    | yes | no | no | test image, labelled by the folders below that of ``test``: normal if one is \
    named ``good``, ``OK``, ``normal`` or the like (see `words.meaning`), else defective |
    | any | yes | yes | `UserError` |

    Files in ``masks`` have no role, whatever else matches them. A kind of defect is named after the
    first folder below that of ``test`` or ``anomalous`` (see `Pattern.base`), or after that folder
    if the image lies directly in it. To train on known defects, use `noise` or `read_csv`.

    Names that begin with a dot are ignored, as are links to a folder that contains them.
    Images are not opened.

    Args:
        root: The folder. Names of images are relative to it.
        categories: Which to read, with ``by_directory``; ``None``: all.
        test: One or several folders or patterns. Folders are relative to the root or absolute; the
            images of those outside the root are added, with names that begin with ``..``. Patterns
            (``*/test``, ``**/*_ng.png``) match files and whole folders below the root.
        masks: A folder that mirrors the test images: a mask has the path that its image has
            relative to the root or to the folder of ``test`` (without one: of ``anomalous``), with
            or without ``_mask`` at the end of its stem, and any suffix. Folders are as in ``test``.
        normal: As ``test``.
        anomalous: As ``test``.
        by_directory: The first folder of a name is the category. If ``test`` or ``anomalous`` is a
            folder beside those of the categories, or outside the root, it contains folders of
            categories itself. Otherwise all images are one category with the root's name.

    Returns:
        The images by category and name. Notes say what is missing and what was ignored. Among
        the problems are dangling links and folders that may not be listed.

    Raises:
        UserError: If an argument is wrong, a folder does not exist or has no image, a pattern
            matches none, an image has no clear role, category or mask, it is not certain which
            folders hold normal images, or a category has no training images.
    """
    folder = data_folder(root, "the images, also in subfolders")
    source = f"data.root={shown(str(folder))}"
    if categories is not None and not by_directory:
        msg = "data.categories needs data.by_directory=true: without, all images are one category"
        raise UserError(msg)
    if not isinstance(by_directory, bool):
        msg = f"data.by_directory must be true or false, got {by_directory!r}"
        raise UserError(msg)
    given = {"test": test, "normal": normal, "anomalous": anomalous}
    patterns = {key: read_patterns(f"data.{key}", value, folder) for key, value in given.items()}
    truth = MaskFolder(masks, folder)
    outside = [p.outside for each in patterns.values() for p in each if p.outside is not None]
    found = _search(folder, outside, truth.parts)
    if not found.images:
        raise UserError(_nothing(folder, found))
    name = Path(os.path.normpath(folder.absolute())).name
    rules = RoleRules(patterns, category=None if by_directory else name)
    roles = {image: rules.role(image) for image in found.images}
    if rules.unused:
        msg = f"{rules.unused[0].text} has no image in {source}; fix it or leave it out"
        raise UserError(msg)
    names = chosen_categories(categories, {role.category for role in roles.values()}, source)
    roles = {image: role for image, role in roles.items() if role.category in names}
    split = Split([], [], notes=_passed_over(found), folders=(folder, *truth.folders, *outside))
    for unreadable, reason in found.unreadable.items():
        split.problems.append(Problem(writable("/".join(unreadable)), reason))
    for image, role in roles.items():
        name = "/".join(image)
        mask = truth.mask(name, role.places) if role.defect else None
        sample = Sample(
            name,
            role.category,
            role.defect,
            found.images[image],
            mask,
            injected=role.injected,
            label=role.label,
        )
        (split.test if role.test else split.train).append(sample)
    if not split.test and (other := known_layout(folder)):
        split.notes.append(f"{source} {other}, which tells its test images and masks apart")
    by_folder = {"/".join(image) for image, role in roles.items() if role.by_folder}
    for each in names:
        _require_certainty([s for s in split.test if s.category == each], by_folder, each)
    unknown = [image for image, r in roles.items() if not r.test and r.injected is None]
    split.notes.extend(_unused_labels(unknown))
    split.notes.extend(truth.notes(r.places for r in roles.values() if r.test and not r.defect))
    masks_from = "data.masks" if masks is None else f"masks in data.masks={shown(str(masks))}"
    return sort_by_category(split, names, source=source, masks=masks_from)


def _search(root: Path, outside: Sequence[Path], masks: Parts | None) -> _Found:
    """Search the root and the folders outside it, without masks."""
    places: dict[Parts, Path] = {(): root}
    for folder in outside:
        places[PurePosixPath(os.path.relpath(folder, root.absolute())).parts] = folder
    found = _Found({}, {}, {}, {})
    for start, folder in places.items():

        def named(path: Path, start: Parts = start, folder: Path = folder) -> Parts:
            return (*start, *path.relative_to(folder).parts)

        inner = search_folder(folder)
        found.images.update({named(path): path for path in inner.images})
        found.others.update({named(path): path for path in inner.others})
        found.upward.update({named(path): path for path in inner.upward})
        found.unreadable.update({named(path): reason for path, reason in inner.unreadable})
    if masks is not None:
        for each in found:
            for name in [name for name in each if name[: len(masks)] == masks]:
                del each[name]
    return found


def _nothing(root: Path, found: _Found) -> str:
    kinds = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
    seen = "; ".join([*found.unreadable.values(), *_passed_over(found)]) or "there are no files"
    return (
        f"data.root={shown(str(root))} holds no image ({kinds}): {seen}; name a folder with images"
    )


def _passed_over(found: _Found) -> list[str]:
    notes = []
    if found.others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in found.others.values())
        count = counted(len(found.others), "other file")
        notes.append(f"ignored {count}, first {_first(found.others)} ({_counts(kinds)})")
    if found.upward:
        count = f"{len(found.upward)}, first {_first(found.upward)}"
        notes.append(f"ignored links to folders above them: {count}")
    return notes


def _first(files: dict[Parts, Path]) -> str:
    return shown("/".join(next(iter(files))))


def _counts(counter: Counter[str]) -> str:
    words = [f"{shown(name)}: {count}" for name, count in counter.most_common()]
    return first_few(words, _MOST_NAMED)


def _require_certainty(test: Sequence[Sample], by_folder: Collection[str], category: str) -> None:
    """Refuse a category if the names of its folders leave open which test images are normal."""
    told = [sample for sample in test if sample.path in by_folder]
    words = Counter(sample.label or "" for sample in told)
    why = doubt(words, of_defect=True, needed=True)
    bare = set(words) - {sample.label for sample in told if sample.mask is not None}
    kinds = [word for word in bare if meaning(word, of_defect=True) is Meaning.KIND]
    if not why and kinds and len(words) > 1 and all(sample.is_anomaly for sample in test):
        why = f"none of {_counts(words)} is a usual word for normal"
    if why:
        msg = (
            f"category {shown(category)}: test images are labelled by the names of their folders, "
            f"but {why}; rename the folders, or name them in data.normal and data.anomalous"
        )
        raise UserError(msg)


def _unused_labels(images: Iterable[Parts]) -> list[str]:
    """Say which folders seem to label images of unknown quality."""
    folders = Counter(folder for image in images for folder in image[:-1] if is_telling(folder))
    if not folders:
        return []
    advice = "name the folders in data.normal and data.anomalous to tell their images apart"
    return [f"names of folders are not read as labels: {_counts(folders)}; {advice}"]
