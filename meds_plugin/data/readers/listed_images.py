"""For readers of data sets that come with lists: listed files, repeats, injected images."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import natural_key
from meds_plugin.data.samples import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meds_plugin.data.samples import Sample, Split

__all__ = ["EntryError", "listed_file", "mark_injected", "usable_samples"]


class EntryError(Exception):
    """An entry of a list cannot be used; the message says why, in one line."""


def listed_file(root: Path, folder: Path, name: str) -> tuple[str, Path]:
    """Return a file that a list names.

    Args:
        root: The data set's folder.
        folder: The folder below it that the name is relative to.
        name: The name in the list.

    Returns:
        Its path relative to the root, and the file.

    Raises:
        EntryError: If the name leads out of the folder, or is not that of a file.
    """
    foreign = PureWindowsPath(name)  # takes both slashes, so it sees `..` in any spelling
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
    except ValueError:  # a null character
        why = "is not the name of a file"
    msg = f"{shown(str(file))} {why}"
    raise EntryError(msg)


def usable_samples(
    results: Iterable[tuple[str, Sample | Problem]],
    problems: list[Problem],
    *,
    by: Callable[[Sample], str],
) -> list[Sample]:
    """Return the samples among the results of a list's entries, without repeats, in order.

    Args:
        results: The position of each entry in the list, and its sample or problem.
        problems: The problems are appended, one for each repeat included.
        by: The key to sort samples by, in natural order.
    """
    found: dict[str, Sample] = {}
    for where, result in results:
        if isinstance(result, Problem):
            problems.append(result)
        elif found.setdefault(result.path, result) is not result:
            reason = f"{where}: {shown(result.path)} is listed a second time; take one out"
            problems.append(Problem(result.path, reason))
    return sorted(found.values(), key=lambda sample: natural_key(by(sample)))


def mark_injected(split: Split, source: str, *, always: bool = False) -> None:
    """Mark training images as injected or not, where a list says which are defective.

    Args:
        split: Changed in place.
        source: The list's name, for the note.
        always: Mark them even if none is defective.
    """
    defects = sum(sample.is_anomaly for sample in split.train)
    if defects or always:
        split.train[:] = [replace(sample, injected=sample.is_anomaly) for sample in split.train]
    if defects:
        count = f"{defects} of {len(split.train)} training images"
        split.notes.append(f"{source} lists {count} as defective: they count as injected")
