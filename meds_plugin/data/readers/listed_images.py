"""For readers of data sets that come with lists: listed files, repeats, injected images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, TypeAlias

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import natural_key
from meds_plugin.data.readers.by_category import category_notes
from meds_plugin.data.readers.safe_paths import path_inside
from meds_plugin.data.samples import Problem
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path, PurePosixPath

    from meds_plugin.data.samples import Sample, Split

    Entry: TypeAlias = tuple[str, Sample | Problem]  # its position in the list, what it gives

__all__ = ["EntryError", "add_category", "listed_file", "mark_injected"]


class EntryError(Exception):
    """An entry of a list cannot be used; the message says why and what to do, in one line."""


def listed_file(folder: Path, name: str) -> PurePosixPath:
    r"""Return a file that a list names, relative to a folder.

    Args:
        folder: The folder.
        name: The name in the list: relative to the folder or absolute in it, with ``/`` or ``\``.
            Spaces around it are ignored, unless the file's own name has them.

    Raises:
        EntryError: If it is not a file in the folder.
    """
    trimmed = name.strip()
    spellings = dict.fromkeys((name, trimmed, trimmed.replace("\\", "/")))
    places = [path_inside(folder, spelling) for spelling in spellings]
    for place in places:
        # Not Path.is_file, which raises if a folder may not be entered or a name is too long.
        if place is not None and os.path.isfile(folder / place):  # noqa: PTH113
            return place
    outside = trimmed and (None in places or PureWindowsPath(trimmed).drive)
    what = "leads outside" if outside else "is not a readable file in"
    msg = (
        f"{shown(name) if trimmed else 'an empty name'} {what} {shown(str(folder))}; "
        "fix it or data.root, or remove the entry"
    )
    raise EntryError(msg)


def add_category(
    split: Split,
    category: str,
    source: object,
    train: Sequence[Entry],
    test: Sequence[Entry],
) -> None:
    """Add the images of a category that a list names, without repeats, in natural order.

    Samples are sorted by ``Sample.extra["converted"]``, if they have it, or else by their path.

    Args:
        split: Changed in place: images, problems (one for each repeat) and notes on missing masks.
        category: Its name.
        source: The list, for messages.
        train: The training entries; an entry is its position in the list, and its sample or
            problem.
        test: The test entries.

    Raises:
        UserError: If there is no training entry.
    """
    if not train:
        what = f"category {category}: {source} lists no training images"
        msg = f"{what}; leave it out of data.categories"
        raise UserError(msg)
    for entries, samples in ((train, split.train), (test, split.test)):
        found: dict[str, Sample] = {}
        for where, result in entries:
            if isinstance(result, Problem):
                split.problems.append(result)
            elif found.setdefault(result.path, result) is not result:
                reason = f"{where}: {shown(result.path)} is listed a second time; remove one"
                split.problems.append(Problem(result.path, reason))
        samples += sorted(
            found.values(), key=lambda s: natural_key(s.extra.get("converted", s.path))
        )
    tested = [sample for sample in split.test if sample.category == category]
    split.notes.extend(category_notes(category, tested, "masks"))


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
