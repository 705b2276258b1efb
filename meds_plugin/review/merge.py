"""Merges the decisions of several reviewers; a conflict is listed and decided by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.review.decision_file import (
    Decision,
    decisions_text,
    free_file,
    read_decisions,
    write_list,
)
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.utils.atomic import csv_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Merged", "merge_decisions"]


class Merged(NamedTuple):
    """The result.

    Attributes:
        file: The ``decisions.csv`` that was written, without the conflicts.
        decided: Number of decisions in it.
        shared: Number of images that at least two reviewers decided.
        dropped: Those that all of them drop.
        kept: Those that all of them keep.
        conflicts: Names of the others.
        table: The conflicts with each reviewer's decision; ``None`` if there are none.
    """

    file: Path
    decided: int
    shared: int
    dropped: int
    kept: int
    conflicts: list[str]
    table: Path | None


def merge_decisions(run: Path, files: Sequence[Path], *, output: Path | None = None) -> Merged:
    """Write the decisions of several reviewers of the same run as one file.

    An image is decided as all who decided about it say. The table of conflicts has a column
    ``decision`` to fill in, and can then be merged with the rest.

    Args:
        run: The run that was reviewed.
        files: Two files or more; see `read_decisions`.
        output: File to write; default: ``decisions.csv`` in the run's folder, or the first of
            ``decisions2.csv``, ... that is free. The conflicts go beside it, likewise.

    Raises:
        UserError: As `read_decisions`; if there is only one file, ``output`` is one of them, or a
            result cannot be written.
    """
    if len(files) < 2 or len({file.resolve() for file in files}) < len(files):
        msg = "merge takes two files or more: --merge a.csv b.csv"
        raise UserError(msg)
    if output and output.resolve() in {file.resolve() for file in files}:
        msg = f"output={output} is one of the files to merge: give another one"
        raise UserError(msg)
    images = read_ranked_run(run).images
    opinions = [read_decisions(file, images, key="--merge") for file in files]
    said = {i.path: [o[i.path] for o in opinions if i.path in o] for i in images}
    agreed = {
        name: Decision(given[0].drop, "; ".join(dict.fromkeys(d.note for d in given if d.note)))
        for name, given in said.items()
        if len({decision.drop for decision in given}) == 1
    }
    conflicts = [name for name, given in said.items() if given and name not in agreed]
    shared = [name for name, given in said.items() if len(given) > 1]
    text = decisions_text(images, agreed)
    file = output or free_file(run, "decisions", text)
    write_list(file, text)
    table = None
    if conflicts:
        columns = [str(each) for each in files]
        rows = [
            {"path": image.path, "category": image.category, "decision": None, "score": image.score}
            | {
                name: opinion[image.path].word if image.path in opinion else None
                for name, opinion in zip(columns, opinions, strict=True)
            }
            for image in images
            if image.path in conflicts
        ]
        text = csv_text(list(rows[0]), rows)
        table = free_file(file.parent, f"{file.stem}_conflicts", text)
        write_list(table, text)
    dropped = sum(agreed[name].drop for name in shared if name in agreed)
    kept = len(shared) - len(conflicts) - dropped
    return Merged(file, len(agreed), len(shared), dropped, kept, conflicts, table)
