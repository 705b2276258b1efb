"""The figures of `won_back`: what is lost and won against noise, and what the subset holds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from meds_plugin.figures.style import COLOURS, MARKERS, grid, save, styled
from meds_plugin.runs.read import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meds_plugin.runs.collection import Run
    from tests.benchmarks.won_back import Row

__all__ = ["draw", "subset_over_time"]


def draw(
    folder: Path,
    rows: Mapping[tuple[str, str], Sequence[Row]],
    runs: Mapping[tuple[str, str], Mapping[str, Sequence[Run]]],
) -> list[Path]:
    """Draw both figures, a panel for each data set and detector.

    Args:
        folder: Where they are written.
        rows: The summary, by data set and detector.
        runs: The runs behind it, by variant.
    """
    variants = list(dict.fromkeys(row.variant for own in rows.values() for row in own))
    looks: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        for place, name in enumerate(variants)
    }
    with styled():
        first, axes = grid(len(rows), columns=3)
        for axis, (names, own) in zip(axes, rows.items(), strict=True):
            for variant in variants:
                points = [row for row in own if row.variant == variant and row.image is not None]
                axis.errorbar(
                    [row.noise for row in points],
                    [row.image or 0.0 for row in points],
                    [row.spread or 0.0 for row in points],
                    **looks[variant],
                    markersize=4,
                    capsize=2,
                    label=variant,
                )
            axis.set(title=", ".join(names), xlabel="noise", ylabel="image AUROC")
        second, others = grid(len(rows), columns=3)
        for axis, names in zip(others, rows, strict=True):
            for variant, own_runs in runs[names].items():
                worst = max((run.noise or 0.0 for run in own_runs), default=0.0)
                curve = subset_over_time([run for run in own_runs if run.noise == worst])
                if curve:
                    steps, shares = zip(*curve, strict=True)
                    axis.plot(steps, shares, **looks[variant], markersize=3, label=variant)
            axis.set(title=", ".join(names), xlabel="step", ylabel="contaminated share")
            axis.set_ylim(bottom=0)
        written = []
        for name, figure, panels in (("won_back", first, axes), ("subset", second, others)):
            shown: dict[str, Any] = {}
            for axis in panels:
                handles, texts = axis.get_legend_handles_labels()
                shown |= dict(zip(texts, handles, strict=True))
            figure.legend([*shown.values()], [*shown], loc="outside lower center", ncols=6)
            written += save(figure, folder, name, ["png"])
    return written


def subset_over_time(runs: Sequence[Run], every: int = 50) -> list[tuple[int, float]]:
    """Return the contaminated share of the selected images, from step to step.

    Args:
        runs: Runs whose contamination is known; their means are taken.
        every: Steps are rounded down to multiples of this, for runs refresh at different ones.
    """
    shares: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        kept: dict[int, int] = defaultdict(int)
        contaminated: dict[int, int] = defaultdict(int)
        for row in read_rows(run.path / "selection.csv"):
            step = int(row["step"])
            kept[step] += int(row["kept"])
            contaminated[step] += int(row["contaminated"] or 0)
        own: dict[int, list[float]] = defaultdict(list)
        for step, count in kept.items():
            own[step // every * every].append(contaminated[step] / count)
        for step, values in own.items():
            shares[step].append(statistics.fmean(values))
    return [(step, statistics.fmean(values)) for step, values in sorted(shares.items())]
