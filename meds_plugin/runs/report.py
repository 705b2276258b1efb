"""The closing table of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["print_report", "table"]


def print_report(
    metrics: dict[str, Any],
    folder: Path,
    contamination: dict[str, Any] | None = None,
    selected: Sequence[bool] | None = None,
) -> None:
    """Print the metrics of every category, the ranking's quality, and where the files are.

    Args:
        metrics: Content of ``metrics.json``.
        folder: The run's folder.
        contamination: Content of ``contamination.json``.
        selected: For each training image, whether the final selection holds it; ``None``: the
            method selects none.
    """
    protocol, noise, ranking = metrics["protocol"], metrics["noise"], metrics["ranking"]
    asked = "as found" if noise["asked"] is None else f"{noise['asked']:g}"
    if noise["file"] is not None:
        asked = f"from {noise['file']}"
    detector = "" if protocol["backbone"] is None else f" backbone={protocol['backbone']}"
    print(f"\nmethod={protocol['method']}{detector} noise={asked}")
    if any(
        value is not None for values in metrics["categories"].values() for value in values.values()
    ):
        print(table({**metrics["categories"], "mean": metrics["mean"]}))
    reasons = {
        f"quality of the ranking: {reason}" if name == "ranking" else reason
        for name, reasons in metrics["skipped"].items()
        for reason in reasons.values()
    }
    for reason in sorted(reasons):
        print(f"not computed: {reason}")
    if ranking["auprc"] is not None:
        print(
            f"ranking of the training images: AUPRC {ranking['auprc']:.3f}; all defective images "
            f"are among the first {ranking['inspection_depth']:.0%}"
        )
    if selected is not None:
        left_out = len(selected) - sum(selected)
        print(f"left out by the selection: {left_out} of {len(selected)} training images")
    if contamination is not None:
        print(_contamination(contamination))
    print(f"results are in {folder}: metrics.json, ranking.csv (most suspicious first), ...")
    if (folder / "review.html").is_file():
        print(f"to review the training images, open {folder / 'review.html'} in a browser")


def _contamination(contamination: dict[str, Any]) -> str:
    """Describe the contamination in one line, and name the categories without an estimate."""
    categories = contamination["categories"]
    known = {name: row for name, row in categories.items() if row["estimate"] is not None}
    parts = [
        f"{name} {row['estimate']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
        for name, row in known.items()
    ]
    if unknown := [name for name in categories if name not in known]:
        reasons = {categories[name]["reason"] for name in unknown}
        why = f": {reasons.pop()}" if len(reasons) == 1 else ""
        names = first_few(unknown)
        parts.append(f"no estimate for {names}{why}")
    level = contamination["all"]["level"]
    return f"contaminated, estimated from scores ({level:.0%} interval): {'; '.join(parts)}"


def table(rows: dict[str, dict[str, float | None]]) -> str:
    """Format metrics as text: a row for each name, three decimals, ``-`` for a missing value."""
    names = list(next(iter(rows.values())))
    width = max(len("category"), *(len(name) for name in rows))
    lines = ["category".ljust(width) + "".join(f"{name:>9}" for name in names)]
    for name, values in rows.items():
        cells = ("-" if values[key] is None else f"{values[key]:.3f}" for key in names)
        lines.append(name.ljust(width) + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)
