"""From a reviewer's decisions to the list of images to exclude and the command to train again."""

from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.csv_table import first_line, parse_csv, read_text
from meds_plugin.data.exclude import excluded_names, read_exclude
from meds_plugin.data.faults import shown
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.runs.read import read_config
from meds_plugin.utils.atomic import csv_text, write_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Applied", "apply_decisions", "read_decisions"]

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
        decisions: The reviewer's file; see `read_exclude` for the words it may contain.
        output: File to write; default: ``exclude.csv`` in the run's folder, or the first of
            ``exclude2.csv``, ... that is free: a later run may depend on an existing list.

    Raises:
        UserError: If the folder holds no run; the file lacks a column, has an unknown decision or
            a name that is not in the run, or drops no image or a whole category; or the list
            cannot be written.
    """
    categories = {image.path: image.category for image in read_ranked_run(run).images}
    where = f"--apply={shown(str(decisions))}"
    decided = read_decisions(run, categories, decisions, "--apply")
    dropped = {name for name, drop in decided.items() if drop}
    if not dropped:
        msg = f"{where} drops no image: there is nothing to exclude"
        raise UserError(msg)
    remaining = {name for path, name in categories.items() if path not in dropped}
    if emptied := sorted(set(categories.values()) - remaining):
        msg = (
            f"{where} drops every training image of {', '.join(map(shown, emptied))}; "
            "keep some of them"
        )
        raise UserError(msg)
    previous = read_config(run).data.exclude
    before = set() if previous is None else read_exclude(previous) - dropped
    names = [*sorted(before), *(path for path in categories if path in dropped)]
    rows = ({"path": name, "category": categories.get(name), "decision": "drop"} for name in names)
    text = csv_text(_COLUMNS, rows)
    file = _free_list(run, text) if output is None else output
    try:
        write_text(file, text)
    except OSError as error:
        msg = f"{file} cannot be written ({error.strerror}): give another file with --output"
        raise UserError(msg) from error
    target = _free_folder(run)
    return Applied(file, len(dropped), len(before), _command(run, file, target), target)


def read_decisions(run: Path, names: Collection[str], file: Path, key: str) -> dict[str, bool]:
    """Return the decided images, and whether each is dropped; undecided ones are left out.

    Args:
        run: The run that was reviewed, for messages.
        names: Its training images.
        file: The reviewer's file; see `read_exclude` for the words it may contain.
        key: The option that names it, for messages.

    Raises:
        UserError: If the file lacks a column, has an unknown decision or one that contradicts
            another, or a name that is not in the run.
    """
    text = read_text(file, key)
    where = f"{key}={shown(str(file))}"
    table = parse_csv(text, file, key, _COLUMNS)
    if table is None or "decision" not in table.columns:
        missing = "path" if table is None else "decision"
        msg = (
            f"{where} has no column {missing}; {first_line(text)}; "
            "give the decisions.csv that the page downloads"
        )
        raise UserError(msg)
    dropped = excluded_names(table, file, key=key)
    rows = {row.cells["path"]: row.cells["decision"].strip().casefold() for row in table.rows}
    if unknown := sorted(rows.keys() - set(names)):
        msg = (
            f"{where}: {len(unknown)} names are not training images of {run}, for example "
            f"{shown(unknown[0])}; give the decisions of this run"
        )
        raise UserError(msg)
    kept = {name for name, word in rows.items() if word == "keep"}
    return {name: name in dropped for name in rows if name in dropped or name in kept}


def _free_list(run: Path, text: str) -> Path:
    """Return the first file for a list that does not exist or holds this very text."""
    files = (run / f"exclude{number}.csv" for number in _suffixes())
    return next(f for f in files if not f.exists() or f.read_bytes() == text.encode())


def _free_folder(run: Path) -> Path:
    """Return a folder beside the run's that does not exist."""
    run = run.absolute()
    folders = (run.with_name(f"{run.name}_reviewed{number}") for number in _suffixes())
    return next(folder for folder in folders if not folder.exists())


def _suffixes() -> itertools.chain[str]:
    return itertools.chain([""], map(str, itertools.count(2)))


def _command(run: Path, file: Path, target: Path) -> str:
    words = ["--config-path", str(run.absolute()), "--config-name", "config"]
    words += [f"data.exclude={file.absolute()}", f"hydra.run.dir={target.absolute()}"]
    return shlex.join(["python", "-m", "meds_plugin.run", *words])
