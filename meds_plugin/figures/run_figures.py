"""The figures of one run, drawn from the tables in its folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from meds_plugin.figures.style import ANOMALOUS, COLOURS, NORMAL, count_axis, grid, log_axis
from meds_plugin.ranking import auprc, inspection_depth
from meds_plugin.runs.read import read_rows

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from meds_plugin.runs.collection import Run

    Rows = list[dict[str, str]]

__all__ = ["inspection_figure", "score_figure", "selection_figure", "theorem1_figure"]

_MOST = 32  # categories with a panel of their own
_BINS = 24


def score_figure(run: Run) -> Figure | None:
    """Draw a histogram of the final scores per category, with threshold and known contamination."""
    ranking = read_rows(run.path / "ranking.csv")
    thresholds = _last_thresholds(read_rows(run.path / "selection.csv"))
    names = _panel_categories(ranking)
    if not names:
        return None
    figure, axes = grid(len(names))
    known = all(row["injected"] for row in ranking)
    for name, axis in zip(names, axes, strict=True):
        rows = [row for row in ranking if row["category"] == name]
        scores = np.array([float(row["score"]) for row in rows])
        contaminated = np.array([row["injected"] == "1" for row in rows])
        groups = [scores[~contaminated], scores[contaminated]] if known else [scores]
        edges, logarithmic = _bin_edges(scores)
        axis.hist(
            groups,
            bins=edges.tolist(),
            stacked=True,
            color=[NORMAL, ANOMALOUS][: len(groups)],
            hatch=["", "////"][: len(groups)],
            edgecolor="white",
            linewidth=0.4,
            label=["clean", "contaminated"] if known else ["images"],
        )
        for place, threshold in enumerate(thresholds.get(name, [])):
            label = None if place else "threshold"
            axis.axvline(threshold, color="black", linestyle="--", label=label)
        if logarithmic:
            log_axis(axis)
        count_axis(axis)
        axis.set_title(name)
        axis.set_xlabel("final score (unitless)")
        axis.set_ylabel("training images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Scores of the training images\n{_run_title(run)}", fontsize=10)
    return figure


def selection_figure(run: Run) -> Figure | None:
    """Draw the number of selected images over time, and the threshold."""
    rows = read_rows(run.path / "selection.csv")
    names = _panel_categories(rows)
    if not names:
        return None
    columns = min(4, len(names))
    bands = math.ceil(len(names) / columns)
    figure, axes = grid(2 * bands * columns, columns=columns, size=(3.2, 2.0))
    for place, name in enumerate(names):
        band, column = divmod(place, columns)
        top, bottom = (axes[(2 * band + row) * columns + column] for row in range(2))
        own = [row for row in rows if row["category"] == name]
        steps = [int(row["step"]) for row in own]
        curves = [("kept", "selected", NORMAL, "-")]
        if all(row.get("contaminated") for row in own):
            curves.append(("contaminated", "of these, contaminated", ANOMALOUS, "--"))
        for key, label, colour, style in curves:
            values = [int(row[key]) for row in own]
            top.step(
                steps, values, style, where="post", marker=".", color=colour, label=label, zorder=3
            )
            top.lines[-1].set_clip_on(False)  # markers at 0 stay whole
        count_axis(top)
        top.set_title(name)
        top.set_ylabel("images")
        bottom.plot(steps, [float(row["threshold"]) for row in own], "-", color="black")
        bottom.plot(steps, [float(row["median"]) for row in own], ":", color="black")
        bottom.set_xlabel("training step")
        bottom.set_ylabel("score (unitless)")
    lines = [*axes[0].lines, *axes[columns].lines]
    labels = [*(str(line.get_label()) for line in axes[0].lines), "threshold", "median score"]
    figure.legend(lines, labels, loc="outside lower center", ncols=4)
    for panel in axes:
        panel.set_visible(bool(panel.lines))
    figure.suptitle(f"Selection over time: {_run_title(run)}", fontsize=10)
    return figure


def theorem1_figure(run: Run) -> Figure | None:
    """Draw Theorem 1: distances, gap and AUROC of patches against the size of a memory."""
    rows = read_rows(run.path / "gap.csv")
    if not rows:
        return None
    figure, axes = grid(3, size=(3.4, 3.1), columns=3)
    names = sorted({row["category"] for row in rows})
    ratios = sorted({float(row["ratio"]) for row in rows})
    by_point = {(row["category"], float(row["ratio"])): row for row in rows}

    def values(key: str) -> NDArray[np.float64]:  # [categories, ratios]
        return np.array([[float(by_point[name, r][key]) for r in ratios] for name in names])

    for key, colour, marker in (("normal", NORMAL, "o"), ("anomalous", ANOMALOUS, "s")):
        axes[0].plot(ratios, values(key).mean(0), color=colour, marker=marker, ms=4, label=key)
    axes[0].set_ylabel("mean cosine distance of patches")
    colours = COLOURS if len(names) <= len(COLOURS) else ("#999999",) * len(names)
    for axis, key, label in (
        (axes[1], "gap", "gap: anomalous \N{MINUS SIGN} normal"),
        (axes[2], "auroc", "AUROC of patches"),
    ):
        for name, colour, curve in zip(names, colours, values(key), strict=False):
            axis.plot(ratios, curve, color=colour, lw=1, label=name if colours is COLOURS else None)
        mean = values(key).mean(0)
        axis.plot(ratios, mean, color="black", lw=2, ls="--", label="mean of categories")
        axis.set_ylabel(label)
    used = float(run.config["memory"]["ratio"])
    for axis in axes:
        log_axis(axis)
        axis.set_xlabel("fraction of the images in a memory")
        axis.axvline(used, color="#777777", ls=":", label=f"memory.ratio={used:g}")
    axes[0].set_ylim(bottom=0)
    axes[2].set_ylim(top=1.0 + 0.03 * (1.0 - axes[2].get_ylim()[0]))
    legend: dict[str, Artist] = {}
    for axis in (axes[0], axes[2]):
        handles, labels = axis.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=6)
    figure.suptitle(f"Theorem 1 (expected over all memories): {_run_title(run)}", fontsize=10)
    return figure


def inspection_figure(run: Run, beside: Run | None = None) -> Figure | None:
    """Draw the fraction of contaminated images found against the fraction of images reviewed.

    Args:
        run: The run.
        beside: Another run on the same data, usually the plain detector's, to compare with.
    """
    ranking = read_rows(run.path / "ranking.csv")
    if not any(row["injected"] == "1" for row in ranking):
        return None
    figure, axes = grid(1, size=(4.6, 3.6))
    curves: list[tuple[str, Rows, str]] = [(run.method, ranking, "score")]
    earlier = [key for key in ("memory", "distilled") if ranking[0][key] and key != run.method]
    curves += [(f"{key} scores", ranking, key) for key in earlier]
    if beside is not None:
        other = read_rows(beside.path / "ranking.csv")
        if any(row["injected"] == "1" for row in other):
            curves.append((f"{beside.method} run", other, "score"))
    styles = ("-", "-.", ":", "--")
    for (label, rows, key), colour, style in zip(curves, COLOURS, styles, strict=False):
        _inspection_curve(axes[0], rows, key, label=label, color=colour, style=style)
    contaminated = sum(row["injected"] == "1" for row in ranking) / len(ranking)
    axes[0].plot([0, contaminated, 1], [0, 1, 1], color="#999999", lw=1, label="perfect ranking")
    axes[0].set_xlabel("fraction of images reviewed, most suspicious first")
    axes[0].set_ylabel("fraction of contaminated images found")
    axes[0].legend(loc="lower right", fontsize=7)
    figure.suptitle(f"Inspection: {_run_title(run)}", fontsize=10)
    return figure


def _inspection_curve(
    axis: Axes, rows: Rows, key: str, *, label: str, color: str, style: str
) -> None:
    scores = np.array([float(row[key]) for row in rows])
    truth = np.array([row["injected"] == "1" for row in rows])
    order = np.argsort(-scores, kind="stable")
    found = np.concatenate([[0], np.cumsum(truth[order]) / truth.sum()])
    depth = inspection_depth(scores, truth)
    label = f"{label}: AUPRC {auprc(scores, truth):.3f}, all found within {depth:.0%}"
    reviewed = np.linspace(0, 1, len(found))
    axis.plot(reviewed, found, color=color, linestyle=style, label=label)
    axis.plot([depth], [1.0], color=color, marker="o", ms=5, clip_on=False)


def _bin_edges(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Return the edges of a histogram's bins, and whether they are logarithmic."""
    low, high = float(scores.min()), float(scores.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if low > 0 and high > 5 * float(np.median(scores)):
        return np.geomspace(low, high, _BINS + 1), True
    return np.linspace(low, high, _BINS + 1), False


def _panel_categories(rows: Rows) -> list[str]:
    """Return the names of the first categories, sorted."""
    return sorted({row["category"] for row in rows})[:_MOST]


def _last_thresholds(rows: Rows) -> dict[str, list[float]]:
    """Return the final thresholds by category: one, or one per camera view."""
    last = {row["category"]: float(row["threshold"]) for row in rows}
    result: dict[str, list[float]] = {}
    for group, threshold in last.items():
        for name in {group, group.rpartition("/")[0]}:
            result.setdefault(name, []).append(threshold)
    return result


def _run_title(run: Run) -> str:
    noise = "as found" if run.noise is None else f"{run.noise:g}"
    return f"{run.row}, noise {noise}, seed {run.seed}"
