"""What readers of known layouts share: the root, the choice of categories, listed files, notes."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.readers.listing import natural
from meds_plugin.data.samples import Problem
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from meds_plugin.data.samples import Sample, Split

__all__ = [
    "EntryError",
    "category_notes",
    "chosen",
    "data_folder",
    "is_folder",
    "is_plain_name",
    "listed_file",
    "mark_injected",
    "usable_samples",
]


class EntryError(Exception):
    """An entry of a list cannot be used; the message says why, in one line."""


def data_folder(root: str | os.PathLike[str] | None, expected: str) -> Path:
    """Return the data set's folder.

    Args:
        root: As the user gave it; a leading ``~`` is the home folder.
        expected: The layout, in a few words, for the message.

    Raises:
        UserError: If it is missing, not there, or no folder.
    """
    if root is None:
        msg = f"data.root=DIR is missing: name the folder that holds {expected}"
        raise UserError(msg)
    folder = Path(os.path.expanduser(root))  # noqa: PTH111 - Path.expanduser raises for `~nobody`
    if is_folder(folder):
        return folder
    what = "is a file, not a folder" if folder.exists() else "does not exist"
    msg = f"data.root={folder} {what}; name the folder that holds {expected}"
    raise UserError(msg)


def is_folder(path: Path) -> bool:
    """Whether a folder is there.

    Raises:
        UserError: If that cannot be told, since a folder above it may not be entered.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); check its permissions"
        raise UserError(msg) from error


def chosen(categories: Sequence[str] | str | None, found: Collection[str], root: Path) -> list[str]:
    """Return the names of the categories to read, in natural order.

    Args:
        categories: What the user asked for; ``None`` means all.
        found: What there is.
        root: The data set's folder, for the message.

    Raises:
        UserError: If one is asked for that is not there, or none is.
    """
    if categories is None:
        return sorted(found, key=natural)
    wanted = {str(n) for n in ([categories] if isinstance(categories, str) else categories)}
    unknown = sorted(wanted - set(found), key=natural)
    if unknown or not wanted:
        there = ", ".join(sorted(found, key=natural))
        what = f"not in data.root={root}" if unknown else "no category is named"
        msg = f"data.categories=[{','.join(map(shown, unknown))}]: {what}; there are: {there}"
        raise UserError(msg)
    return sorted(wanted, key=natural)


def listed_file(root: Path, folder: Path, name: str) -> tuple[str, Path]:
    """Return a file that a list names.

    Args:
        root: The data set's folder.
        folder: The folder in it that the name is relative to.
        name: What the list says.

    Returns:
        Its path relative to the root, and the file.

    Raises:
        EntryError: If the name leads out of the folder, or no file is there.
    """
    foreign = PureWindowsPath(name)  # takes both kinds of slashes, so it sees `..` in any spelling
    if not name or foreign.anchor or ".." in foreign.parts:
        msg = f"{shown(name) or 'an empty name'} is not a path below {folder}"
        raise EntryError(msg)
    file = folder / PurePosixPath(name)
    try:
        if stat.S_ISREG(file.stat().st_mode):
            return file.relative_to(root).as_posix(), file
        why = "is not a file"
    except (FileNotFoundError, NotADirectoryError):
        why = "does not exist"
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    except ValueError:  # a name with a zero in it
        why = "is not the name of a file"
    msg = f"{shown(str(file))} {why}"
    raise EntryError(msg)


def usable_samples(
    results: Iterable[tuple[str, Sample | Problem]],
    problems: list[Problem],
    *,
    by: Callable[[Sample], str],
) -> list[Sample]:
    """Return the samples among what came of a list's entries, without repeats.

    Args:
        results: Where in the list an entry stands, and what came of it.
        problems: Gets the problems, and one for each repeat.
        by: What the samples are to be sorted by, in natural order.
    """
    found: dict[str, Sample] = {}
    for where, result in results:
        if isinstance(result, Problem):
            problems.append(result)
        elif found.setdefault(result.path, result) is not result:
            reason = f"{where}: {shown(result.path)} is listed a second time; take one out"
            problems.append(Problem(result.path, reason))
    return sorted(found.values(), key=lambda sample: natural(by(sample)))


def is_plain_name(name: str) -> bool:
    """Whether a text names something in a folder itself, not somewhere else."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def category_notes(category: str, test: Sequence[Sample], masks: str) -> list[str]:
    """Return what cannot be measured on a category, a line each.

    Args:
        category: Its name.
        test: Its test images.
        masks: What is missing if none of them has a mask.
    """
    if not test:
        return [f"category {category}: no test images: no metrics for it"]
    defects = [sample for sample in test if sample.is_anomaly]
    bare = sum(sample.mask is None for sample in defects)
    if not bare:
        return []
    what = f"no {masks}" if bare == len(defects) else f"{bare} of {len(defects)} masks are missing"
    return [f"category {category}: {what}: pixel metrics are skipped"]


def mark_injected(split: Split, source: str, *, always: bool = False) -> None:
    """Mark training images as injected or not, where a list says which are defective.

    Args:
        split: Is changed.
        source: The list's name, for the note.
        always: Mark them also if none is.
    """
    defects = sum(sample.is_anomaly for sample in split.train)
    if defects or always:
        split.train[:] = [replace(sample, injected=sample.is_anomaly) for sample in split.train]
    if defects:
        count = f"{defects} of {len(split.train)} training images"
        split.notes.append(f"{source} lists {count} as defective: they count as injected")
