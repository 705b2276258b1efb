"""Reads photographs of solar cells from an installed package: `data=elpv`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import read_text
from meds_plugin.data.faults import shown
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.safe_paths import path_inside
from meds_plugin.data.samples import Sample, Split
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import numpy_rng
from meds_plugin.utils.values import is_number, is_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["read_elpv"]

_LICENCE = (
    "elpv-dataset: CC BY-NC-SA 4.0, not for commercial use; its authors ask to be cited "
    "(Buerhop-Lutz et al. 2018, Deitsch et al. 2019 and 2021)"
)


class _Cell(NamedTuple):
    path: str
    probability: float
    kind: str


def read_elpv(
    root: str | os.PathLike[str] | None = None,
    categories: Sequence[str] | str | None = None,
    *,
    defect: float = 1.0,
    doubtful: bool = False,
    train_normal: int | None = 200,
    test_normal: int | None = 100,
    test_defective: int | None = 140,
    seed: int = 0,
) -> Split:
    """List electroluminescence photographs of solar cells, by type of cell.

    A cell is normal if its probability of a defect is 0, and defective from ``defect`` on. Normal
    cells are split at random into training and test images; defective ones are test images. There
    are no masks.

    Args:
        root: The folder with ``labels.csv`` and ``images``; default: that of the installed package
            ``elpv-dataset``.
        categories: ``mono``, ``poly``; ``None``: both.
        defect: Probability from which a cell counts as defective, in (0, 1].
        doubtful: Also train on the cells in between, as a real line would. They do not count as
            contamination. Otherwise they are left out.
        train_normal: Normal training images per category; ``None``: all that are not test images.
        test_normal: Normal test images per category; ``None``: all.
        test_defective: Defective test images per category; ``None``: all.
        seed: Of the random split; the run's seed does not change it.

    Returns:
        The images by category and name.

    Raises:
        UserError: If the package is not installed, a file is missing or damaged, a number is out
            of its range, or a category has too few images.
    """
    if not is_number(defect) or not 0 < defect <= 1:
        msg = f"data.defect={defect!r} must be a probability above 0, up to 1"
        raise UserError(msg)
    if not isinstance(doubtful, bool):
        msg = f"data.doubtful must be true or false, got {doubtful!r}"
        raise UserError(msg)
    folder = _package() if root is None else data_folder(root, "labels.csv of elpv-dataset")
    cells = _cells(folder)
    names = chosen_categories(categories, {cell.kind for cell in cells}, "data=elpv")
    found = Split([], [], notes=[_LICENCE], folders=(folder,))
    for name in names:
        own = [cell for cell in cells if cell.kind == name]
        order = numpy_rng(seed, "elpv", name).permutation(len(own))
        shuffled = [own[place] for place in order]
        normal = [cell for cell in shuffled if cell.probability == 0]
        between = [cell for cell in shuffled if 0 < cell.probability < defect]
        broken = [cell for cell in shuffled if cell.probability >= defect]
        tested = _first(normal, test_normal, "test_normal", name)
        trained = _first(normal[len(tested) :], train_normal, "train_normal", name)
        found.test.extend(_sample(cell, folder, None) for cell in tested)
        found.test.extend(
            _sample(cell, folder, "defect")
            for cell in _first(broken, test_defective, "test_defective", name)
        )
        found.train.extend(_sample(cell, folder, None, injected=False) for cell in trained)
        found.train.extend(_sample(cell, folder, None) for cell in between if doubtful)
        if between and not doubtful:
            found.notes.append(
                f"category {name}: {len(between)} cells of a probability between 0 and {defect:g} "
                "are left out; data.doubtful=true trains on them"
            )
    return sort_by_category(found, names, source="data=elpv", masks="masks")


def _package() -> Path:
    spec = find_spec("elpv_dataset")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if Path(place, "data", "labels.csv").is_file():
            return Path(place, "data")
    msg = (
        "data=elpv reads the package elpv-dataset, which is not installed: "
        "pip install 'meds-plugin[elpv]', or give data.root=DIR with its labels.csv"
    )
    raise UserError(msg)


def _cells(folder: Path) -> list[_Cell]:
    """Read the table: a path, a probability and a type in each line, separated by spaces.

    Raises:
        UserError: If it cannot be read, or a line is malformed.
    """
    file = folder / "labels.csv"
    cells = []
    for number, line in enumerate(read_text(file, "data.root").splitlines(), start=1):
        match line.split():
            case []:
                continue
            case [path, probability, kind] if cell := _cell(folder, path, probability, kind):
                cells.append(cell)
            case _:
                msg = (
                    f"{shown(str(file))}, line {number}: {shown(line)} is not an image, "
                    "a probability and a type; install elpv-dataset again"
                )
                raise UserError(msg)
    return cells


def _cell(folder: Path, path: str, probability: str, kind: str) -> _Cell | None:
    place = path_inside(folder, path)
    try:
        value = float(probability)
    except ValueError:
        return None
    if place is None or not 0 <= value <= 1:
        return None
    return _Cell(place.as_posix(), value, kind)


def _first(cells: list[_Cell], count: int | None, key: str, category: str) -> list[_Cell]:
    """Return the first ``count`` cells; all if it is ``None``."""
    if count is None:
        return cells
    if not is_whole(count) or count < 0:
        msg = f"data.{key} must be a whole number of at least 0 or null, got {count!r}"
        raise UserError(msg)
    if count > len(cells):
        msg = f"data.{key}={count}: category {category} has {len(cells)} such cells left"
        raise UserError(msg)
    return cells[:count]


def _sample(
    cell: _Cell, folder: Path, defect: str | None, *, injected: bool | None = None
) -> Sample:
    return Sample(
        cell.path,
        cell.kind,
        defect,
        folder / cell.path,
        injected=injected,
        extra={"probability": f"{cell.probability:g}"},
        label=f"probability {cell.probability:g}",
    )
