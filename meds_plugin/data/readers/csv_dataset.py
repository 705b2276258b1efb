"""Reads a data set listed in a CSV table: `data=csv`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.csv_columns import (
    COLUMNS,
    asks_for_defect,
    is_label_column,
    read_image_table,
)
from meds_plugin.data.readers.csv_labels import Labels
from meds_plugin.data.readers.listed_images import EntryError, listed_file
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.data.words import Meaning, is_missing, meaning, part_of
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.data.csv_table import CsvRow
    from meds_plugin.data.readers.csv_labels import NormalWords

__all__ = ["read_csv"]


def read_csv(
    file: str | os.PathLike[str] | None,
    root: str | os.PathLike[str] | None = None,
    categories: Sequence[str] | str | None = None,
    *,
    normal: NormalWords = None,
) -> Split:
    r"""List the images in a table, one per row.

    The table is CSV in UTF-8 with commas, semicolons or tabs. Columns, in any order and case, and
    by other usual names (``image_path``, ``label_index``, see `csv_columns`):

    | column | holds | if empty or not there |
    |---|---|---|
    | path | the image: relative to the root or absolute in it; with ``/`` or ``\`` | a problem |
    | split | ``train`` or ``test`` | no column: all are training images; empty: a problem |
    | label | see below | training image: unknown; test image: a problem |
    | mask | the mask, like path; used for images known to show a defect | no mask |
    | category | the product or texture | the root's name |

    Labels are read as `words.meaning` says: ``0 good OK normal PASS i.O.`` mean normal, ``1`` a
    defect of the kind ``anomaly``, and words that mean neither a defect of that kind. A table is
    refused if it is not certain which of its labels mean normal. ``nan``, ``None`` and ``NULL``
    count as empty cells. Images of the split ``val`` are left out. Training images with a label
    have ``injected`` set. Other columns go into `Sample.extra`. Images are not opened.

    Args:
        file: The table.
        root: The folder that paths are relative to; default: the table's folder.
        categories: Which to read, in any order; ``None``: all.
        normal: The only labels that mean normal, in place of the usual words; ``[]``: none.

    Returns:
        The images by category and name. Rows that cannot be used are among the problems, by their
        number in a spreadsheet: for a path or mask that leads out of the root or does not exist, a
        repeated path, an unknown split or a label that is missing or contradicts another column.

    Raises:
        UserError: If the file cannot be read, is not UTF-8, has no row or lacks a column; if labels
            are doubtful; or if the root or a category does not exist, or a category has no training
            image that is not labelled as defective.
    """
    if file is None:
        names = ", ".join(COLUMNS)
        msg = f"data.file=FILE is missing: name a table (CSV) with the columns {names}"
        raise UserError(msg)
    source = f"data.file={shown(str(file))}"
    table = read_image_table(file)
    beside = Path(expand_home(file)).parent
    folder = data_folder(beside if root is None else root, "the images that data.file lists")
    own_name = Path(os.path.normpath(folder.absolute())).name
    by_row = [(row, _category(row) or own_name) for row in table.rows]
    chosen = chosen_categories(categories, {category for _, category in by_row}, source)
    rows = [(row, category) for row, category in by_row if category in chosen]
    found = Split([], [], notes=list(table.notes), folders=(folder,))
    column = table.names.get("label", "label")
    labels = Labels(normal, f"{source}, column {shown(column)}", of_defect=asks_for_defect(column))
    parts = [part_of(row.cells.get("split", "train")) for row, _ in rows]
    written = [row.cells.get("label", "") for row, _ in rows]
    tested = [label for label, part in zip(written, parts, strict=True) if part == "test"]
    labels.check(written, tested)
    reader = _RowReader(folder, labels, table.others)
    for (row, category), part in zip(rows, parts, strict=True):
        if part == "val":
            continue
        try:
            sample = reader.sample(row, category, part)
        except EntryError as error:
            reason = f"{source}, row {row.number}: {error}"
            found.problems.append(Problem(row.cells["path"], reason))
            continue
        (found.test if part == "test" else found.train).append(sample)
    labels.check_samples(found.train, found.test)
    if left := parts.count("val"):
        if "test" not in parts:
            msg = f"{source} has rows of the split val but none of test; write test to test on them"
            raise UserError(msg)
        found.notes.append(f"{source}: rows of the split val, left out: {left}")
    if unused := sum(_without_use(sample) for sample in [*found.train, *found.test]):
        found.notes.append(
            f"{source}: masks of images not known to show a defect, unused: {unused}"
        )
        for samples in (found.train, found.test):
            samples[:] = [replace(s, mask=None) if _without_use(s) else s for s in samples]
    return sort_by_category(found, chosen, source=source, masks="masks (column mask)")


def _category(row: CsvRow) -> str | None:
    name = row.cells.get("category", "").strip()
    return None if is_missing(name) else name


def _without_use(sample: Sample) -> bool:
    return sample.mask is not None and not sample.is_anomaly


class _RowReader:
    """Reads the rows of a table.

    Args:
        root: The folder that paths are relative to.
        labels: What labels mean.
        others: The columns for `Sample.extra`; those of labels must agree with the label.
    """

    def __init__(self, root: Path, labels: Labels, others: Sequence[str]) -> None:
        self._root = root
        self._labels = labels
        self._others = others
        self._also = [name for name in others if labels.usual and is_label_column(name)]
        self._rows: dict[str, int] = {}  # of earlier images, by name

    def sample(self, row: CsvRow, category: str, part: str | None) -> Sample:
        """Return a row's image.

        Raises:
            EntryError: If the row cannot be used.
        """
        if any(cell.strip() for cell in row.surplus):
            msg = "it has more cells than the header; put a name with the separator in it in quotes"
            raise EntryError(msg)
        cells = row.cells
        place = listed_file(self._root, cells["path"])
        name = place.as_posix()
        if (before := self._rows.setdefault(name, row.number)) != row.number:
            msg = f"{shown(name)} is listed in row {before} already; keep one of the two"
            raise EntryError(msg)
        if part is None:
            word = cells["split"].strip()
            what = shown(word) if word else "is empty, which"
            msg = f"split {what} is unknown; write train or test"
            raise EntryError(msg)
        label = cells.get("label", "").strip()
        known = self._labels.meaning(label) is not Meaning.MISSING
        if part == "test" and not known:
            silent = f"label {shown(label)} says nothing, and " if label else ""
            advice = "write normal or the defect's name, or make it train"
            msg = f"{silent}a test image needs a label; {advice}"
            raise EntryError(msg)
        defect = self._labels.defect(label)
        if known:
            self._require_agreement(cells, label, defect)
        mask = cells.get("mask", "")
        return Sample(
            name,
            category,
            defect,
            self._root / place,
            None if is_missing(mask) else self._root / listed_file(self._root, mask),
            injected=defect is not None if known and part == "train" else None,
            extra={key: cells[key] for key in self._others},
            label=label if known else None,
        )

    def _require_agreement(self, cells: dict[str, str], label: str, defect: str | None) -> None:
        for name in self._also:
            of_defect = asks_for_defect(name)
            meant = meaning(cells[name], of_defect=of_defect)
            says_normal = defect is not None and meant is Meaning.NORMAL
            says_defective = meant is Meaning.DEFECTIVE or (of_defect and meant is Meaning.KIND)
            if says_normal or (defect is None and says_defective):
                msg = (
                    f"label {shown(label)} contradicts {shown(name)} {shown(cells[name].strip())}; "
                    "correct one of them"
                )
                raise EntryError(msg)
