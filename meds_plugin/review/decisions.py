"""From a reviewer's decisions to the list of images to exclude and the command to train again."""

from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.exclude import read_exclude
from meds_plugin.data.faults import shown
from meds_plugin.review.decision_file import free_file, read_decisions, write_list
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.runs.read import read_config
from meds_plugin.utils.atomic import csv_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meds_plugin.review.decision_file import Decision
    from meds_plugin.review.ranked_run import RankedImage

__all__ = ["Applied", "apply_decisions", "read_drops"]

_COLUMNS = ("path", "category", "decision")


class Applied(NamedTuple):
    """The result of a review.

    Attributes:
        file: The list for ``data.exclude``.
        dropped: Number of images that this review drops.
        before: Number of images that earlier reviews dropped.
        command: Trains again without all of them, with every other setting unchanged.
        target: The folder of that run.
    """

    file: Path
    dropped: int
    before: int
    command: str
    target: Path


def apply_decisions(run: Path, decisions: Path, *, output: Path | None = None) -> Applied:
    """Write the list of images to exclude from the next training.

    Images that the run itself excluded by ``data.exclude`` stay excluded.

    Args:
        run: The run that was reviewed.
        decisions: The reviewer's file; see `read_decisions`.
        output: File to write; default: ``exclude.csv`` in the run's folder, or the first of
            ``exclude2.csv``, ... that is free: a later run may depend on an existing list.

    Raises:
        UserError: If the folder holds no run; as `read_drops`; or the list cannot be written.
    """
    images = read_ranked_run(run).images
    dropped = read_drops(decisions, images)
    previous = read_config(run).data.exclude
    before = set() if previous is None else read_exclude(previous) - dropped.keys()
    categories = {image.path: image.category for image in images}
    names = [*sorted(before), *dropped]
    rows = ({"path": name, "category": categories.get(name), "decision": "drop"} for name in names)
    text = csv_text(_COLUMNS, rows)
    file = free_file(run, "exclude", text) if output is None else output
    write_list(file, text)
    target = _free_folder(run)
    return Applied(file, len(dropped), len(before), _command(run, file, target), target)


def read_drops(file: Path, images: Sequence[RankedImage]) -> dict[str, Decision]:
    """Return the decisions that drop an image, in the order of the images.

    Args:
        file: The reviewer's file.
        images: The training images of the run.

    Raises:
        UserError: As `read_decisions`, or if it drops no image or a whole category.
    """
    decisions = read_decisions(file, images)
    drops = {i.path: d for i in images if (d := decisions.get(i.path)) and d.drop}
    where = f"--apply={shown(str(file))}"
    if not drops:
        msg = f"{where} drops no image: there is nothing to exclude"
        raise UserError(msg)
    remaining = {image.category for image in images if image.path not in drops}
    if emptied := sorted({image.category for image in images} - remaining):
        msg = (
            f"{where} drops every training image of {', '.join(map(shown, emptied))}; "
            "keep some of them"
        )
        raise UserError(msg)
    return drops


def _free_folder(run: Path) -> Path:
    """Return a folder beside the run's that does not exist."""
    run = run.absolute()
    numbers = itertools.chain([""], itertools.count(2))
    folders = (run.with_name(f"{run.name}_reviewed{number}") for number in numbers)
    return next(folder for folder in folders if not folder.exists())


def _command(run: Path, file: Path, target: Path) -> str:
    words = ["--config-path", str(run.absolute()), "--config-name", "config"]
    words += [f"data.exclude={file.absolute()}", f"hydra.run.dir={target.absolute()}"]
    return shlex.join(["python", "-m", "meds_plugin.run", *words])
