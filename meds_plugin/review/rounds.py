"""From a reviewer's decisions to the run without the dropped images, and what it gained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from meds_plugin.data.csv_table import first_line, parse_csv, read_text
from meds_plugin.data.exclude import excluded_names, read_exclude
from meds_plugin.data.faults import shown
from meds_plugin.review.entries import read_review
from meds_plugin.runs.read import read_config, read_metrics, read_rows
from meds_plugin.runs.report import table
from meds_plugin.utils.atomic import csv_text, write_csv, write_text
from meds_plugin.utils.errors import UserError

__all__ = ["Applied", "apply_decisions", "compare_runs", "print_comparison"]

COMPARISON = "before_after.csv"
_COLUMNS = ("path", "category", "decision")
_PLAIN = re.compile(r"[\w./-]+")  # needs no quotes in an override


class Applied(NamedTuple):
    """What came of a review.

    Attributes:
        file: The list for ``data.exclude``.
        dropped: Number of images that the review drops.
        before: Number of images that an earlier review had dropped.
        command: Trains again without them, with everything else as it was.
        target: The folder of that run.
    """

    file: Path
    dropped: int
    before: int
    command: str
    target: Path


def apply_decisions(run: Path, decisions: Path, *, output: Path | None = None) -> Applied:
    """Write the list of images to leave out.

    What the run itself left out by ``data.exclude`` stays left out.

    Args:
        run: The run that was reviewed.
        decisions: The review's file; see `read_exclude` for the words it may hold.
        output: Where to write; default: ``exclude.csv`` in the run's folder, or the next of
            ``exclude2.csv``, ... that is free: a later run may have been trained by the first.

    Raises:
        UserError: If the folder holds no run, the file has no such columns, an unknown decision or
            a name that is none of the run's, drops nothing or everything of a category, or the
            list cannot be written.
    """
    manifest = {entry.path: entry.category for entry in read_review(run).entries}
    dropped = _read(decisions)
    where = f"--apply={shown(str(decisions))}"
    if unknown := sorted(dropped.named - manifest.keys()):
        msg = (
            f"{where}: {len(unknown)} names are no training images of {run}, first "
            f"{shown(unknown[0])}; give the decisions of this run"
        )
        raise UserError(msg)
    if not dropped.out:
        msg = f"{where} drops no image: there is nothing to leave out, and nothing is written"
        raise UserError(msg)
    emptied = set(manifest.values()) - {c for p, c in manifest.items() if p not in dropped.out}
    if emptied:
        msg = f"{where} drops every training image of {', '.join(map(shown, sorted(emptied)))}"
        raise UserError(msg)
    earlier = read_config(run).data.get("exclude")
    before = set() if earlier is None else read_exclude(earlier) - dropped.out
    names = [*sorted(before), *(path for path in manifest if path in dropped.out)]
    rows = ({"path": path, "category": manifest.get(path), "decision": "drop"} for path in names)
    text = csv_text(_COLUMNS, rows)
    file = _free(run, text) if output is None else output
    try:
        write_text(file, text)
    except OSError as error:
        msg = f"{file} cannot be written ({error.strerror}): give another file with --output"
        raise UserError(msg) from error
    target = _beside(run)
    return Applied(file, len(dropped.out), len(before), _command(run, file, target), target)


def compare_runs(before: Path, after: Path) -> str:
    """Put the metrics of two runs side by side.

    Args:
        before: The run that was reviewed.
        after: The run without the dropped images; ``before_after.csv`` is written there.

    Returns:
        A table for the terminal.

    Raises:
        UserError: If one of them is not finished, or they have no category in common.
    """
    old, new = read_metrics(before), read_metrics(after)
    shared = [name for name in new["categories"] if name in old["categories"]]
    if not shared:
        msg = f"{before} and {after} have no category in common: give runs on the same data"
        raise UserError(msg)
    pairs = {name: (old["categories"][name], new["categories"][name]) for name in shared}
    pairs["mean"] = (old["mean"], new["mean"])
    rows: dict[str, dict[str, float | None]] = {}
    lines = []
    for name, (was, now) in pairs.items():
        change = {key: _less(now.get(key), was[key]) for key in was}
        rows |= {f"{name} before": was, f"{name} after": now, f"{name} change": change}
        lines += [
            {"category": name, "metric": key, "before": was[key], "after": now.get(key)}
            | {"change": change[key]}
            for key in was
        ]
    write_csv(after / COMPARISON, ("category", "metric", "before", "after", "change"), lines)
    head = [f"before: {before} ({_images(before)})", f"after:  {after} ({_images(after)})"]
    others = sorted(
        key
        for key in {*old["protocol"], *new["protocol"]}
        if old["protocol"].get(key) != new["protocol"].get(key)
    )
    note = [f"the runs differ in more than their images: {', '.join(others)}"] if others else []
    return "\n".join([*head, *note, table(rows), f"also in {after / COMPARISON}"])


def print_comparison(exclude: str | None, run: Path) -> None:
    """Compare a run with the one whose review it follows.

    Args:
        exclude: The run's ``data.exclude``; nothing is printed where it does not lie in the folder
            of another finished run.
        run: The run, finished: it stays so where the two cannot be compared, which is said.
    """
    before = None if exclude is None else Path(exclude).parent
    if before is None or not (before / "metrics.json").is_file():
        return
    try:
        print(compare_runs(before, run))
    except UserError as error:
        print(f"not compared with {before}: {error}")


class _Decisions(NamedTuple):
    named: set[str]
    out: set[str]


def _read(file: Path) -> _Decisions:
    text = read_text(file, "--apply")
    found = parse_csv(text, file, "--apply", _COLUMNS)
    if found is None or "decision" not in found.columns:
        missing = "path" if found is None else "decision"
        msg = (
            f"--apply={shown(str(file))} has no column {missing}; {first_line(text)}; "
            "give the decisions.csv that the page downloads"
        )
        raise UserError(msg)
    named = {row.cells["path"] for row in found.rows}
    return _Decisions(named, excluded_names(found, file, key="--apply"))


def _free(run: Path, text: str) -> Path:
    """Return the first file for a list that is not there yet, or holds this very list."""
    number = 1
    while True:
        file = run / f"exclude{number if number > 1 else ''}.csv"
        if not file.exists() or file.read_bytes() == text.encode():
            return file
        number += 1


def _beside(run: Path) -> Path:
    """Return a folder beside the run's that is not there yet."""
    run = run.absolute()
    number = 1
    while (target := run.with_name(f"{run.name}_reviewed{number if number > 1 else ''}")).exists():
        number += 1
    return target


def _command(run: Path, file: Path, target: Path) -> str:
    words = ["--config-path", str(run.absolute()), "--config-name", "config"]
    words += [f"data.exclude={_value(file)}", f"hydra.run.dir={_value(target)}"]
    return shlex.join(["python", "-m", "meds_plugin.run", *words])


def _value(path: Path) -> str:
    text = str(path.absolute())
    quoted = text.replace("'", "\\'")
    return text if _PLAIN.fullmatch(text) else f"'{quoted}'"


def _images(run: Path) -> str:
    injected = [row.get("injected") for row in read_rows(run / "manifest.csv")]
    known = sum(value == "1" for value in injected)
    defective = f", {known} known to be defective" if known else ""
    return f"{len(injected)} training images{defective}"


def _less(now: float | None, was: float | None) -> float | None:
    return None if now is None or was is None else now - was
