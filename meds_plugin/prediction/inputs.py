"""Finds the images to score: a file, a folder with its subfolders, or a pattern."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import NamedTuple

from meds_plugin.data.faults import bad_name, shown, writable
from meds_plugin.data.file_search import IMAGE_SUFFIXES, natural_key, search_folder
from meds_plugin.data.links import links_out
from meds_plugin.data.samples import Problem, Sample
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home

__all__ = ["FoundImages", "find_images"]


class FoundImages(NamedTuple):
    """What was found.

    Attributes:
        root: The folder that names are relative to.
        images: The files by name; POSIX, below the root, in natural order. They are not opened
            here.
        problems: What cannot be scored for its name or place, with the reason.
        passed_over: Number of files of other kinds.
    """

    root: Path
    images: dict[str, Path]
    problems: list[Problem]
    passed_over: int


def find_images(
    text: str, *, outside_links: bool = False, without: Path | None = None
) -> FoundImages:
    """List the images to score.

    Args:
        text: A file, whatever its suffix; a folder, nested in any way; or a shell pattern
            (``shots/*/*.png``, ``**`` for any folders). A file or folder whose own name looks like
            a pattern is taken as it is.
        outside_links: Allow links that lead out of the folder.
        without: A folder to leave out: that of the results.

    Raises:
        UserError: If nothing is there, or results would go into the folder of the images.
    """
    path = Path(expand_home(text))
    if text and os.path.lexists(path):
        if not path.is_dir():
            found = FoundImages(path.parent, {path.name: path}, [], 0)
            return _checked(found, outside_links=True)
        found = _in_folder(path)
    elif glob.has_magic(text):
        found = _by_pattern(str(path))
    else:
        msg = f"images={shown(text)} does not exist: give an image, a folder or a pattern"
        raise UserError(msg)
    if without is not None:
        out = Path(os.path.realpath(without))
        if out == Path(os.path.realpath(found.root)):
            msg = f"output={shown(str(without))} is the folder of the images: give another"
            raise UserError(msg)
        images = {
            name: file
            for name, file in found.images.items()
            if not Path(os.path.realpath(file.parent)).is_relative_to(out)
        }
        found = found._replace(images=images)
    if not found.images and not found.problems:
        kinds = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        what = f"{found.passed_over} other files" if found.passed_over else "nothing"
        msg = f"images={shown(text)} holds no image ({kinds}) but {what}: name some"
        raise UserError(msg)
    return _checked(found, outside_links=outside_links)


def _in_folder(root: Path) -> FoundImages:
    inner = search_folder(root)
    return FoundImages(
        root,
        {file.relative_to(root).as_posix(): file for file in inner.images},
        [Problem(writable(f.relative_to(root).as_posix()), why) for f, why in inner.unreadable],
        len(inner.others),
    )


def _by_pattern(pattern: str) -> FoundImages:
    parts = Path(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:fixed]), parts[fixed:]
    if ".." in rest:
        msg = f"images={shown(pattern)}: a pattern may not contain .. after its first wildcard"
        raise UserError(msg)
    # Unlike Path.glob, follows links to folders, as `search_folder` does.
    names = glob.glob(str(Path(*rest)), root_dir=root, recursive=True)  # noqa: PTH207
    files = {Path(name).as_posix(): root / name for name in sorted(set(names), key=natural_key)}
    files = {name: file for name, file in files.items() if not os.path.isdir(file)}  # noqa: PTH112
    images = {n: file for n, file in files.items() if file.suffix.lower() in IMAGE_SUFFIXES}
    return FoundImages(root, images, [], len(files) - len(images))


def _checked(found: FoundImages, *, outside_links: bool) -> FoundImages:
    """Move images whose name or place cannot be used to the problems."""
    samples = [Sample(name, "", None, file) for name, file in found.images.items()]
    outwards = links_out(
        samples,
        () if outside_links else (found.root,),
        root="the folder of images=",
        option="outside_links=true",
    )
    images, problems = {}, list(found.problems)
    for name, file in found.images.items():
        reason = bad_name(name) or outwards.get(name)
        if reason:
            problems.append(Problem(writable(name), reason))
        else:
            images[name] = file
    return found._replace(images=images, problems=problems)
