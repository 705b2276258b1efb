"""The figures of one run, drawn from the tables in its folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from meds_plugin.figures.style import ANOMALOUS, COLOURS, NORMAL, grid, logarithmic, whole
from meds_plugin.ranking import auprc, inspection_depth
from meds_plugin.runs.read import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from meds_plugin.runs.collection import Run

    Rows = list[dict[str, str]]

__all__ = ["inspection", "scores", "selection", "theorem"]

_MOST = 32  # categories that get a panel of their own


def scores(run: Run) -> Figure | None:
    """Draw the histogram of every category's final scores, with threshold and, if known, truth."""
    ranking = read_rows(run.path / "ranking.csv")
    final = _last_thresholds(read_rows(run.path / "selection.csv"))
    names = _shown(ranking)
    if not names:
        return None
    figure, axes = grid(len(names))
    known = all(row["injected"] for row in ranking)
    for name, axis in zip(names, axes, strict=True):
        own = [row for row in ranking if row["category"] == name]
        values = np.array([float(row["score"]) for row in own])
        dirty = np.array([row["injected"] == "1" for row in own])
        low, high = float(values.min()), float(values.max())
        wide = low > 0 and high > 5 * float(np.median(values))
        edges = np.geomspace(low, high, 25) if wide else np.linspace(low, high, 25)
        if high <= low:
            edges = np.linspace(low - 0.5, low + 0.5, 25)
        groups = [values[~dirty], values[dirty]] if known else [values]
        axis.hist(
            groups,
            bins=list(edges),
            stacked=True,
            color=[NORMAL, ANOMALOUS][: len(groups)],
            hatch=["", "////"][: len(groups)],
            edgecolor="white",
            linewidth=0.4,
            label=["clean", "contaminated"] if known else ["images"],
        )
        for place, threshold in enumerate(final.get(name, [])):
            axis.axvline(
                threshold, color="black", linestyle="--", label=None if place else "threshold"
            )
        if wide:
            logarithmic(axis)
        whole(axis)
        axis.set_title(name)
        axis.set_xlabel("final score (no unit)" + (", log" if wide else ""))
        axis.set_ylabel("training images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Scores of the training images: {_title(run)}", fontsize=10)
    return figure


def selection(run: Run) -> Figure | None:
    """Draw what selection keeps over time, and its threshold."""
    rows = read_rows(run.path / "selection.csv")
    names = _shown(rows)
    if not names:
        return None
    columns = min(4, len(names))
    bands = math.ceil(len(names) / columns)
    figure, axes = grid(2 * bands * columns, columns=columns, size=(3.2, 2.0))
    for place, name in enumerate(names):
        band, column = divmod(place, columns)
        top, bottom = (axes[(2 * band + part) * columns + column] for part in (0, 1))
        own = [row for row in rows if row["category"] == name]
        steps = [int(row["step"]) for row in own]
        kept = [int(row["kept"]) for row in own]
        top.step(steps, kept, where="post", marker=".", color=NORMAL, label="kept")
        dirty = [row.get("contaminated") for row in own]
        if all(dirty):
            top.step(
                steps,
                [int(value or 0) for value in dirty],
                where="post",
                marker=".",
                color=ANOMALOUS,
                linestyle="--",
                label="of them contaminated",
            )
        whole(top)
        top.set_title(name)
        top.set_ylabel("images")
        bottom.plot(steps, [float(row["threshold"]) for row in own], "-", color="black")
        bottom.plot(steps, [float(row["median"]) for row in own], ":", color="black")
        bottom.set_xlabel("training step")
        bottom.set_ylabel("score (no unit)")
    lines = [*axes[0].lines, *axes[columns].lines]
    labels = [*(str(line.get_label()) for line in axes[0].lines), "threshold", "median score"]
    figure.legend(lines, labels, loc="outside lower center", ncols=4)
    for panel in axes:
        panel.set_visible(bool(panel.lines))
    figure.suptitle(f"Selection over time: {_title(run)}", fontsize=10)
    return figure


def theorem(run: Run) -> Figure | None:
    """Draw Theorem 1: distances, gap and AUROC of patches against the memory's share."""
    rows = read_rows(run.path / "gap.csv")
    if not rows:
        return None
    figure, axes = grid(3, size=(3.4, 3.1), columns=3)
    names = sorted({row["category"] for row in rows})
    ratios = sorted({float(row["ratio"]) for row in rows})

    def table(key: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        found = {(row["category"], float(row["ratio"])): float(row[key]) for row in rows}
        return np.array([[found[name, ratio] for ratio in ratios] for name in names])

    for key, colour, marker in (("normal", NORMAL, "o"), ("anomalous", ANOMALOUS, "s")):
        axes[0].plot(ratios, table(key).mean(0), color=colour, marker=marker, ms=4, label=key)
    axes[0].set_ylabel("mean cosine distance of patches")
    for axis, key, label in (
        (axes[1], "gap", "gap: anomalous - normal"),
        (axes[2], "auroc", "AUROC of patches"),
    ):
        values = table(key)
        for place, name in enumerate(names):
            few = len(names) <= len(COLOURS)
            colour = COLOURS[place] if few else "#999999"
            axis.plot(ratios, values[place], color=colour, lw=1, label=name if few else None)
        axis.plot(ratios, values.mean(0), color="black", lw=2, ls="--", label="mean of categories")
        axis.set_ylabel(label)
    used = float(run.config["memory"]["ratio"])
    for axis in axes:
        logarithmic(axis)
        axis.set_xlabel("share of the images in a memory")
        axis.axvline(used, color="#777777", ls=":", label=f"memory.ratio={used:g}")
    axes[0].set_ylim(bottom=0)
    axes[2].set_ylim(top=1.0 + 0.03 * (1.0 - axes[2].get_ylim()[0]))
    handles, labels = axes[0].get_legend_handles_labels()
    more = dict(zip(*axes[2].get_legend_handles_labels()[::-1], strict=True))
    more.pop(labels[-1])
    figure.legend(
        [*handles, *more.values()],
        [*labels, *more],
        loc="outside lower center",
        ncols=5,
    )
    figure.suptitle(f"Theorem 1 (expected over all memories): {_title(run)}", fontsize=10)
    return figure


def inspection(run: Run, beside: Run | None = None) -> Figure | None:
    """Draw the share of contaminated images found against the share of the list reviewed.

    Args:
        run: The run.
        beside: The plain detector's on the same data, drawn too.
    """
    ranking = read_rows(run.path / "ranking.csv")
    if not any(row["injected"] == "1" for row in ranking):
        return None
    figure, axes = grid(1, size=(4.6, 3.6))
    lines: list[tuple[str, Rows, str]] = [(run.method, ranking, "score")]
    earlier = [key for key in ("memory", "distilled") if ranking[0][key] and key != run.method]
    lines += [(f"{key} scores", ranking, key) for key in earlier]
    other = read_rows(beside.path / "ranking.csv") if beside is not None else []
    if beside is not None and any(row["injected"] == "1" for row in other):
        lines.append((f"{beside.method} (beside)", other, "score"))
    styles = ("-", "-.", ":", "--")
    for (label, rows, key), colour, style in zip(lines, COLOURS, styles, strict=False):
        _curve(axes[0], rows, key, label=label, color=colour, style=style)
    share = sum(row["injected"] == "1" for row in ranking) / len(ranking)
    axes[0].plot([0, share, 1], [0, 1, 1], color="#999999", lw=1, label="perfect list")
    axes[0].set_xlabel("share of the list reviewed, most suspicious first")
    axes[0].set_ylabel("share of contaminated images found")
    axes[0].legend(loc="lower right", fontsize=7)
    figure.suptitle(f"Inspection: {_title(run)}", fontsize=10)
    return figure


def _curve(axis: Axes, rows: Rows, key: str, *, label: str, color: str, style: str) -> None:
    values = np.array([float(row[key]) for row in rows])
    truth = np.array([row["injected"] == "1" for row in rows])
    order = np.argsort(-values, kind="stable")
    found = np.concatenate([[0], np.cumsum(truth[order]) / truth.sum()])
    depth = inspection_depth(values, truth)
    axis.plot(
        np.linspace(0, 1, len(found)),
        found,
        color=color,
        linestyle=style,
        label=f"{label}: AUPRC {auprc(values, truth):.3f}, all within {depth:.0%}",
    )
    axis.plot([depth], [1.0], color=color, marker="o", ms=5, clip_on=False)


def _shown(rows: Rows) -> list[str]:
    """Return the names of the categories to draw, sorted; of very many, the first."""
    return sorted({row["category"] for row in rows})[:_MOST]


def _last_thresholds(rows: Rows) -> dict[str, list[float]]:
    """Return the final thresholds of every category; several where it has views."""
    last = {row["category"]: float(row["threshold"]) for row in rows}
    result: dict[str, list[float]] = {}
    for group, threshold in last.items():
        for name in {group, group.rpartition("/")[0]}:
            result.setdefault(name, []).append(threshold)
    return result


def _title(run: Run) -> str:
    noise = "as found" if run.noise is None else f"{run.noise:g}"
    return f"{run.backbone}, {run.method}, noise {noise}, seed {run.seed}"
