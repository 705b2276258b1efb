"""Reads a list of training images, such as those that the MeDS authors publish."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from meds_plugin.data.samples import Sample, Split

__all__ = ["read_split_file"]

_CATEGORY_COLUMNS = ("clsname", "class", "category")
# Why a row gives no training image. The first two are no fault of the file.
_UNREADABLE = "for images that cannot be read"
_ELSEWHERE = "for categories that are not read"
_EMPTY = "without a file name"
_OUTSIDE = "with an absolute path or '..'"
_UNKNOWN = "for images that the data set does not have"
_LEAK = "for test images that are not known to show a defect"
_TWICE = "for images named before"
_FAULTS = (_EMPTY, _OUTSIDE, _UNKNOWN, _LEAK, _TWICE)


class _Row(NamedTuple):
    line: int
    name: str
    category: str


def read_split_file(
    file: str | os.PathLike[str], split: Split, *, left_out: Iterable[Sample] = ()
) -> Split:
    """Replace the training images of a data set by those that a list names.

    The list is CSV in UTF-8 with a column ``filename`` and a row a training image. A row names an
    image by its `Sample.path`, by that path with the category's folder before it where the data set
    is the folder of one category, or by ``Sample.extra["converted"]``, which is its name in the
    layout that VisA is converted to. Its category is that in a column ``clsname``, ``class`` or
    ``category``, or else the first folder of the name. Names are only compared, never opened.

    Args:
        file: The list.
        split: The clean data set: rows name its training images and defective test images.
        left_out: Images of the data set that cannot be read. Rows that name one of them, or one of
            ``split.problems``, are passed over.

    Returns:
        The split with exactly the listed training images, in the list's order. ``injected`` is true
        for those that show a defect by their own label. Test images stay as they are. Notes tell
        how many rows were passed over, because of ``left_out`` or for a category that the split
        does not have, and how many training images are not listed.

    Raises:
        UserError: If the file cannot be read, has no such column, or lists nothing for a category
            of the split; or if a name is empty, unknown, an absolute path, leads upwards, was there
            before, or is that of a test image not known to show a defect. All such rows are counted
            in one message, and the first ones named.

    Source: the authors' lists have the columns ``filename,clsname`` (MVTec AD) and
    ``filename,class`` (VisA). They are shuffled, and no order is meant.
    """
    known = _by_name(split.train, split.test)
    normal = {id(sample) for sample in split.test if not sample.is_anomaly}
    skipped = _by_name(left_out, []).keys() | {problem.path for problem in split.problems}
    categories = set(split.categories)
    chosen: dict[int, Sample] = {}
    apart: dict[str, list[_Row]] = {}
    rows = _rows(file)
    for row in rows:
        sample = known.get(row.name)
        if sample is None:
            apart.setdefault(_why_missing(row, skipped, categories), []).append(row)
        elif id(sample) in chosen:
            apart.setdefault(_TWICE, []).append(row)
        elif id(sample) in normal:
            apart.setdefault(_LEAK, []).append(row)
        else:
            chosen[id(sample)] = replace(sample, injected=sample.is_anomaly)
    _stop_at_faults(file, apart, len(rows))
    train = list(chosen.values())
    _require_all(file, categories, train, apart.get(_ELSEWHERE, []))
    unlisted = sum(id(sample) not in chosen for sample in split.train)
    return replace(split, train=train, notes=[*split.notes, *_notes(file, apart, unlisted)])


def _by_name(train: Iterable[Sample], test: Iterable[Sample]) -> dict[str, Sample]:
    """Return the images by each name that a list may give them; the plain path goes first."""
    samples = [*test, *train]
    names = {
        f"{sample.category}/{sample.path}": sample
        for sample in samples
        if not sample.path.startswith(f"{sample.category}/")
    }
    names |= {s.extra["converted"]: s for s in samples if "converted" in s.extra}
    return names | {sample.path: sample for sample in samples}


def _rows(file: str | os.PathLike[str]) -> list[_Row]:
    try:
        with Path(file).expanduser().open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = list(reader.fieldnames or [])
            rows = [_row(reader.line_num, row) for row in reader] if "filename" in columns else []
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"noise_file={file} cannot be read ({reason}); name a list of images as CSV"
        raise UserError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"noise_file={file} is not text in UTF-8; save it as CSV in UTF-8"
        raise UserError(msg) from error
    except csv.Error as error:
        msg = f"noise_file={file} is no CSV (after line {reader.line_num}: {error}); mend it"
        raise UserError(msg) from error
    if "filename" not in columns:
        found = ", ".join(_shown(name) for name in columns[:5]) or "none"
        msg = (
            f"noise_file={file} has no column filename (columns: {found}); it needs filename, with "
            "each training image's path below the data set's folder, and clsname or class"
        )
        raise UserError(msg)
    return rows


def _row(line: int, cells: dict[str, str | None]) -> _Row:
    name = cells["filename"] or ""
    given = [cells.get(column) for column in _CATEGORY_COLUMNS]
    return _Row(line, name, next((c for c in given if c), name.split("/")[0]))


def _why_missing(row: _Row, skipped: set[str], categories: set[str]) -> str:
    if not row.name.strip():
        return _EMPTY
    paths = PurePosixPath(row.name), PureWindowsPath(row.name)
    if any(path.anchor or ".." in path.parts for path in paths):
        return _OUTSIDE
    if row.name in skipped:
        return _UNREADABLE
    return _UNKNOWN if row.category in categories else _ELSEWHERE


def _stop_at_faults(file: str | os.PathLike[str], apart: dict[str, list[_Row]], total: int) -> None:
    found = {fault: apart[fault] for fault in _FAULTS if fault in apart}
    if not found:
        return
    parts = []
    for fault, rows in found.items():
        first = ", ".join(f"line {row.line}: {_shown(row.name)}" for row in rows[:3])
        parts.append(f"{len(rows)} {fault} ({first}{', ...' if len(rows) > 3 else ''})")
    msg = (
        f"noise_file={file} has {sum(map(len, found.values()))} wrong rows of {total}: "
        f"{'; '.join(parts)}; mend the file, or name the data set it was made for in data.root"
    )
    raise UserError(msg)


def _require_all(
    file: str | os.PathLike[str], categories: set[str], train: list[Sample], other: list[_Row]
) -> None:
    """Refuse a list that has nothing for a category."""
    missing = sorted(categories - {sample.category for sample in train})
    if missing:
        there = sorted((categories - set(missing)) | {row.category for row in other})
        msg = (
            f"noise_file={file} lists no training image of {_some(missing)}, but of "
            f"{_some(there)}; choose among those with data.categories=[...], or give another file"
        )
        raise UserError(msg)


def _notes(file: str | os.PathLike[str], apart: dict[str, list[_Row]], unlisted: int) -> list[str]:
    notes = []
    for reason in (_ELSEWHERE, _UNREADABLE):
        if rows := apart.get(reason):
            names = [row.category if reason == _ELSEWHERE else row.name for row in rows]
            some = _some(sorted(set(names)))
            notes.append(f"noise_file={file}: rows {reason}, passed over: {len(rows)} ({some})")
    if unlisted:
        notes.append(f"noise_file={file}: training images that it does not list: {unlisted}")
    return notes


def _some(names: list[str]) -> str:
    shown = [_shown(name) for name in names[:5]]
    return ", ".join([*shown, f"{len(names) - 5} more"] if len(names) > 5 else shown) or "nothing"


def _shown(name: str) -> str:
    """Return a name as it may stand in a line: a break would end it, and some never do."""
    plain = name if name.isprintable() and name else ascii(name)
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
