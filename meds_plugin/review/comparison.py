"""Metrics before and after a review: what training without the dropped images gained."""

from __future__ import annotations

from pathlib import Path

from meds_plugin.runs.read import read_metrics, read_rows
from meds_plugin.runs.report import table
from meds_plugin.utils.atomic import write_csv
from meds_plugin.utils.errors import UserError

__all__ = ["compare_runs", "print_comparison"]

_FILE = "before_after.csv"


def compare_runs(before: Path, after: Path) -> str:
    """Compare the metrics of two runs.

    Args:
        before: The run that was reviewed.
        after: The run without the dropped images; ``before_after.csv`` is written into its folder.

    Returns:
        A table for the terminal.

    Raises:
        UserError: If one of them is not finished, or they have no category in common.
    """
    old, new = read_metrics(before), read_metrics(after)
    common = [name for name in new["categories"] if name in old["categories"]]
    if not common:
        msg = f"{before} and {after} have no category in common: give runs on the same data"
        raise UserError(msg)
    pairs = {name: (old["categories"][name], new["categories"][name]) for name in common}
    pairs["mean"] = (old["mean"], new["mean"])
    shown: dict[str, dict[str, float | None]] = {}
    rows = []
    for name, (was, now) in pairs.items():
        change = {key: _difference(now.get(key), was[key]) for key in was}
        shown |= {f"{name} before": was, f"{name} after": now, f"{name} change": change}
        rows += [
            {"category": name, "metric": key, "before": was[key], "after": now.get(key)}
            | {"change": change[key]}
            for key in was
        ]
    write_csv(after / _FILE, ("category", "metric", "before", "after", "change"), rows)
    lines = [f"before: {before} ({_image_counts(before)})"]
    lines.append(f"after:  {after} ({_image_counts(after)})")
    settings = sorted({*old["protocol"], *new["protocol"]})
    others = [key for key in settings if old["protocol"].get(key) != new["protocol"].get(key)]
    if others:
        lines.append(f"the runs differ in more than their images: {', '.join(others)}")
    return "\n".join([*lines, table(shown), f"also in {after / _FILE}"])


def print_comparison(exclude: str | None, run: Path) -> None:
    """Compare a run with the one whose review it follows, if there is one.

    Args:
        exclude: The run's ``data.exclude``; nothing is printed unless it lies in the folder of
            another finished run.
        run: The run, finished. Why the two cannot be compared is printed, not raised.
    """
    before = None if exclude is None else Path(exclude).parent
    if before is None or not (before / "metrics.json").is_file():
        return
    try:
        print(compare_runs(before, run))
    except UserError as error:
        print(f"not compared with {before}: {error}")


def _image_counts(run: Path) -> str:
    injected = [row.get("injected") for row in read_rows(run / "manifest.csv")]
    known = injected.count("1")
    contaminated = f", {known} known to be contaminated" if known else ""
    return f"{len(injected)} training images{contaminated}"


def _difference(now: float | None, was: float | None) -> float | None:
    return None if now is None or was is None else now - was
