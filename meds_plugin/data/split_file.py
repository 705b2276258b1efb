"""Reads a list of training images, such as those the MeDS authors publish."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from meds_plugin.data.csv_table import read_table
from meds_plugin.data.faults import shown
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from meds_plugin.data.csv_table import CsvRow
    from meds_plugin.data.samples import Sample, Split

__all__ = ["read_split_file"]

_CATEGORY_COLUMNS = ("clsname", "class", "category")
_ADVICE = (
    "it needs filename, with each training image's path below the data set's folder, and clsname "
    "or class"
)
# Why a row gives no training image; the first two are not the file's fault.
_UNREADABLE = "for images that cannot be read"
_ELSEWHERE = "for categories that are not read"
_EMPTY = "without a file name"
_OUTSIDE = "with an absolute path or '..'"
_UNKNOWN = "for images that the data set does not have"
_LEAK = "for test images that are not known to show a defect"
_TWICE = "for images named before"
_FAULTS = (_EMPTY, _OUTSIDE, _UNKNOWN, _LEAK, _TWICE)


def read_split_file(
    file: str | os.PathLike[str], split: Split, *, left_out: Iterable[Sample] = ()
) -> Split:
    """Replace the training images of a data set by those that a list names.

    The list is CSV in UTF-8 (commas, semicolons or tabs) with a column ``filename`` and a row per
    training image. A row names an image by its `Sample.path`, by that path below the category's
    folder if the data set is a single category, or by ``Sample.extra["converted"]``, its name in
    the layout that VisA is converted to. Its category is in a column ``clsname``, ``class`` or
    ``category``, or else the first folder of the name. Names are only compared, never opened.

    Args:
        file: The list.
        split: The clean data set: rows name its training images and defective test images.
        left_out: Images of the data set that cannot be used. Rows that name one of them, or one of
            ``split.problems``, are passed over.

    Returns:
        The split with exactly the listed training images, in the list's order. ``injected`` is true
        for those labelled as defective. Test images stay as they are. Notes say how many rows were
        passed over, because of ``left_out`` or a category that the split does not have, and how
        many training images are not listed.

    Raises:
        UserError: If the file cannot be read, has no column ``filename``, or lists nothing for a
            category of the split; or if a name is empty, unknown, absolute, contains ``..``, is
            repeated, or is that of a test image not known to show a defect. One message counts all
            such rows and names the first.

    Source: the authors' lists have the columns ``filename,clsname`` (MVTec AD) and
    ``filename,class`` (VisA). They are shuffled; the order means nothing.
    """
    known = _by_name(split.train, split.test)
    normal = {id(sample) for sample in split.test if not sample.is_anomaly}
    skipped = _by_name(left_out, []).keys() | {problem.path for problem in split.problems}
    categories = set(split.categories)
    chosen: dict[int, Sample] = {}
    by_reason: dict[str, list[CsvRow]] = {}
    columns = ("filename", *_CATEGORY_COLUMNS)
    rows = read_table(file, "noise_file", columns, needed=["filename"], advice=_ADVICE).rows
    for row in rows:
        sample = known.get(_name(row))
        if sample is None:
            by_reason.setdefault(_why_missing(row, skipped, categories), []).append(row)
        elif id(sample) in chosen:
            by_reason.setdefault(_TWICE, []).append(row)
        elif id(sample) in normal:
            by_reason.setdefault(_LEAK, []).append(row)
        else:
            chosen[id(sample)] = replace(sample, injected=sample.is_anomaly)
    source = f"noise_file={shown(str(file))}"
    _stop_at_faults(source, by_reason, len(rows))
    train = list(chosen.values())
    if missing := sorted(categories - {sample.category for sample in train}):
        other = {_category(row) for row in by_reason.get(_ELSEWHERE, [])}
        there = sorted(categories.difference(missing) | other)
        msg = (
            f"{source} lists no training image of {_some(missing)}, but of {_some(there)}; choose "
            "among those with data.categories=[...], or give another file"
        )
        raise UserError(msg)
    unlisted = sum(id(sample) not in chosen for sample in split.train)
    return replace(split, train=train, notes=[*split.notes, *_notes(source, by_reason, unlisted)])


def _by_name(train: Iterable[Sample], test: Iterable[Sample]) -> dict[str, Sample]:
    """Return the images by every name a list may give them; `Sample.path` takes precedence."""
    samples = [*test, *train]
    names = {
        f"{sample.category}/{sample.path}": sample
        for sample in samples
        if not sample.path.startswith(f"{sample.category}/")
    }
    names |= {s.extra["converted"]: s for s in samples if "converted" in s.extra}
    return names | {sample.path: sample for sample in samples}


def _name(row: CsvRow) -> str:
    return row.cells["filename"]


def _category(row: CsvRow) -> str:
    given = [row.cells.get(column) for column in _CATEGORY_COLUMNS]
    return next((category for category in given if category), _name(row).split("/")[0])


def _why_missing(row: CsvRow, skipped: set[str], categories: set[str]) -> str:
    if not _name(row).strip():
        return _EMPTY
    paths = PurePosixPath(_name(row)), PureWindowsPath(_name(row))
    if any(path.anchor or ".." in path.parts for path in paths):
        return _OUTSIDE
    if _name(row) in skipped:
        return _UNREADABLE
    return _UNKNOWN if _category(row) in categories else _ELSEWHERE


def _stop_at_faults(source: str, by_reason: dict[str, list[CsvRow]], total: int) -> None:
    found = {fault: by_reason[fault] for fault in _FAULTS if fault in by_reason}
    if not found:
        return
    parts = []
    for fault, rows in found.items():
        first = first_few([f"row {row.number}: {_shown(_name(row))}" for row in rows])
        parts.append(f"{len(rows)} {fault} ({first})")
    msg = (
        f"{source} has {sum(map(len, found.values()))} wrong rows of {total}: "
        f"{'; '.join(parts)}; fix the file, or name the data set it was made for in data.root"
    )
    raise UserError(msg)


def _notes(source: str, by_reason: dict[str, list[CsvRow]], unlisted: int) -> list[str]:
    notes = []
    for reason in (_ELSEWHERE, _UNREADABLE):
        if rows := by_reason.get(reason):
            names = [_category(row) if reason == _ELSEWHERE else _name(row) for row in rows]
            some = _some(sorted(set(names)))
            notes.append(f"{source}: rows {reason}, ignored: {len(rows)} ({some})")
    if unlisted:
        notes.append(f"{source}: training images that it does not list: {unlisted}")
    return notes


def _some(names: list[str]) -> str:
    some = [_shown(name) for name in names[:5]]
    return ", ".join([*some, f"{len(names) - 5} more"] if len(names) > 5 else some) or "nothing"


def _shown(name: str) -> str:
    """Return a name fit for a message, shortened if need be."""
    plain = shown(name) if name else repr(name)
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
