"""Reads VisA, as published or converted to MVTec's layout: `data=visa`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import read_table
from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import folders_in, is_folder, natural_key
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.listed_images import (
    EntryError,
    add_category,
    listed_file,
    mark_injected,
)
from meds_plugin.data.readers.mvtec import categories_in, read_category
from meds_plugin.data.readers.part_folders import part_folder
from meds_plugin.data.readers.safe_paths import is_plain_name
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.data.words import Meaning, is_missing, meaning, part_of
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from meds_plugin.data.readers.listed_images import Entry

__all__ = ["read_visa"]

_LAYOUT = (
    "split_csv/1cls.csv and CATEGORY/Data/Images/{Normal,Anomaly}, "
    "or CATEGORY/{train/good,test/good,test/bad}"
)
_COLUMNS = ("object", "split", "label", "image", "mask")
_KINDS = {Meaning.NORMAL: "good", Meaning.DEFECTIVE: "bad"}
_CONVERTED = "1cls"


class _Row(NamedTuple):
    where: str
    values: dict[str, str]


def read_visa(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    split: str | None = None,
) -> Split:
    """List VisA's images, in either of its two layouts.

    The original download has ``<root>/split_csv/1cls.csv`` and
    ``<root>/<category>/Data/{Images,Masks}/{Normal,Anomaly}``. The converted tree has
    ``<root>/<category>/{train/good, test/good, test/bad, ground_truth/bad}``, or the same below
    ``<root>/1cls``, where the authors' script puts it. Images are not opened.

    Args:
        root: The data set's folder.
        categories: Which to read, in any order; ``None``: all.
        split: Name of another file in ``split_csv``, with or without ``.csv``.

    Returns:
        The images by category and their name in the converted tree, so that both layouts give the
        same order. ``extra["converted"]`` holds that name, which the MeDS authors' lists use:
        ``<category>/<train or test>/<good or bad>/<file>``. If the split lists defective images for
        training, ``injected`` tells them from the normal ones. Rows that cannot be used are among
        the problems.

    Raises:
        UserError: If the folder has another layout, or a table, a category or all training images
            of a category are missing.
    """
    folder = data_folder(root, _LAYOUT)
    if any(is_folder(path / "Data" / "Images") for path in folders_in(folder)):
        return _read_original(folder, _table(folder, split), categories)
    for place in (folder, folder / _CONVERTED):
        found = categories_in(place)
        converted = found and all(_is_converted(path) for path in found.values())
        if converted and guess_layout(place) != "btad":
            if split is not None and split.removesuffix(".csv") != _CONVERTED:
                msg = (
                    f"data.split={split} needs VisA's original download; data.root={folder} is "
                    "converted, so its folders are the split: leave data.split out"
                )
                raise UserError(msg)
            return _read_converted(folder, found, categories)
    raise UserError(wrong_layout(folder, "visa", _LAYOUT))


def _is_converted(category: Path) -> bool:
    kinds = folders_in(part_folder(category, "test"))
    known = all(meaning(kind.name) in _KINDS for kind in kinds)
    return known and not is_folder(category / "test_public")


def _read_converted(
    root: Path, found: dict[str, Path], categories: Sequence[str] | str | None
) -> Split:
    split = Split(train=[], test=[], folders=(root,))
    for name in chosen_categories(categories, found, f"data.root={root}"):
        each = read_category(root, found[name], name)
        for part, samples, known in (
            ("train", each.train, split.train),
            ("test", each.test, split.test),
        ):
            for sample in samples:
                kind = "bad" if sample.is_anomaly else "good"
                converted = f"{name}/{part}/{kind}/{PurePosixPath(sample.path).name}"
                known.append(replace(sample, extra={"converted": converted}))
        split.notes.extend(each.notes)
    return split


def _table(folder: Path, split: str | None) -> Path:
    name = f"{(split or _CONVERTED).removesuffix('.csv')}.csv"
    tables = folder / "split_csv"
    there = sorted(path.name for path in tables.glob("*.csv"))
    if name in there:
        return tables / name
    msg = (
        f"data.split={split or _CONVERTED} is not in {tables}; there are: {', '.join(there)}"
        if there
        else f"{tables / name} does not exist; get split_csv from VisA's original download"
    )
    raise UserError(msg)


def _rows(table: Path) -> list[_Row]:
    advice = "get it from VisA's original download"
    rows = read_table(table, "data.root", _COLUMNS, needed=_COLUMNS, advice=advice).rows
    return [
        _Row(
            f"{table.name} row {row.number}",
            {name: row.cells[name].strip() for name in _COLUMNS},
        )
        for row in rows
    ]


def _read_original(root: Path, table: Path, categories: Sequence[str] | str | None) -> Split:
    split = Split(train=[], test=[], folders=(root,))
    by_category: dict[str, list[_Row]] = {}
    for row in _rows(table):
        if is_plain_name(row.values["object"]):
            by_category.setdefault(row.values["object"], []).append(row)
        else:
            reason = f"{row.where}: {shown(row.values['object'])!r} is not a category; fix the row"
            split.problems.append(Problem(row.values["image"] or row.where, reason))
    there = [path.name for path in folders_in(root) if is_folder(path / "Data" / "Images")]
    found = {name: by_category[name] for name in there if name in by_category}
    if not found:
        msg = f"{table} lists no category of data.root={root}: {', '.join(there)}; check both"
        raise UserError(msg)
    for name in chosen_categories(categories, found, f"data.root={root}"):
        masks = is_folder(root / name / "Data" / "Masks")
        train: list[Entry] = []
        test: list[Entry] = []
        for row in found[name]:
            part = train if part_of(row.values["split"]) == "train" else test
            part.append((row.where, _sample(root, row, masks=masks)))
        add_category(split, name, table, train, test)
    mark_injected(split, table.name)
    if categories is None:
        gone = sorted(by_category.keys() - found.keys(), key=natural_key)
        split.notes.extend(f"category {n}: no {n}/Data/Images: left out" for n in gone)
        unlisted = [n for n in there if n not in found]
        split.notes.extend(f"category {n}: not in {table.name}: left out" for n in unlisted)
    return split


def _sample(root: Path, row: _Row, *, masks: bool) -> Sample | Problem:
    category, part, label, name, mask_name = (row.values[column] for column in _COLUMNS)
    try:
        kind = _kind(part, label)
        image = listed_file(root, name)
        needs_mask = kind == "bad" and masks and not is_missing(mask_name)
        mask = root / listed_file(root, mask_name) if needs_mask else None
    except EntryError as error:
        return Problem(name or row.where, f"{row.where}: {error}")
    defect = None if kind == "good" else kind
    extra = {"converted": f"{category}/{part_of(part)}/{kind}/{image.name}"}
    return Sample(image.as_posix(), category, defect, root / image, mask, extra=extra, label=label)


def _kind(part: str, label: str) -> str:
    """Return the folder of a row's label in the converted tree."""
    wrong = None
    if part_of(part) not in ("train", "test"):
        wrong = f"split is {part!r}, not train or test"
    elif meaning(label) not in _KINDS:
        wrong = f"label is {label!r}, not normal or anomaly"
    if wrong:
        msg = f"{wrong}; fix or remove the row"
        raise EntryError(msg)
    return _KINDS[meaning(label)]
