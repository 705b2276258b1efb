"""The figures of a sweep: metrics against noise, the ablation, the ranking, single settings."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from meds_plugin.figures.style import COLOURS, MARKERS, grid, log_axis
from meds_plugin.runs.collection import row_name
from meds_plugin.training.stages import METHODS, RIVAL_METHODS, Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from meds_plugin.runs.collection import Key, Run

__all__ = ["ablation_figure", "noise_figure", "ranking_figure", "setting_figures"]

_LABELS = {
    "I-AUROC": "image AUROC",
    "I-AP": "image AP",
    "P-AP": "pixel AP",
    "P-AUPRO": "AUPRO",
    "auprc": "AUPRC of the ranking",
    "inspection_depth": "inspection depth (lower is better)",
}
_MAIN = ("I-AUROC", "I-AP", "P-AUPRO", "P-AP")
_STYLES: dict[str, Any] = {
    "meds": "-",
    "plain": "--",
    "memory": ":",
    "distilled": "-.",
    "memory_selected": (0, (5, 1)),
    "random_init": (0, (1, 3)),
}
_HATCHES = ("", "//", "..", "xx", "\\\\", "++")


def noise_figure(runs: Sequence[Run]) -> Figure | None:
    """Draw the main metrics against noise, a line per detector and method."""
    return _against_noise(runs, _MAIN, "Metrics against noise", fewest=2)


def ranking_figure(runs: Sequence[Run]) -> Figure | None:
    """Draw how well the ranking finds contaminated images, against noise."""
    known = [run for run in runs if run.metric("auprc") is not None]
    if len(known) < 2:
        return None
    metrics = ("auprc", "inspection_depth")
    return _against_noise(known, metrics, "Ranking of the training images", fewest=1)


def ablation_figure(runs: Sequence[Run]) -> Figure | None:
    """Draw three or more methods side by side, a panel per detector and metric; no rivals."""
    runs = [run for run in runs if run.method not in RIVAL_METHODS]
    methods = [name for name in METHODS if any(run.method == name for run in runs)]
    noises = sorted({run.noise for run in runs if run.noise is not None})
    backbones = sorted({run.backbone for run in runs})
    metrics = [name for name in ("I-AUROC", "P-AP") if any(run.metric(name) for run in runs)]
    if len(methods) < 3 or not noises or not metrics:
        return None
    figure, axes = grid(len(backbones) * len(metrics), columns=len(metrics), size=(4.2, 2.7))
    width = 0.8 / len(methods)
    for place, axis in enumerate(axes):
        backbone, metric = backbones[place // len(metrics)], metrics[place % len(metrics)]
        lowest = 1.0
        for order, method in enumerate(methods):
            for position, noise in enumerate(noises):
                values = _values(runs, metric, backbone, method, noise)
                if not values:
                    continue
                mean, spread = _mean_and_spread(values)
                axis.bar(
                    position + (order - (len(methods) - 1) / 2) * width,
                    mean,
                    width,
                    yerr=spread or None,
                    color=COLOURS[order],
                    edgecolor="white",
                    hatch=_HATCHES[order],
                    label=method if position == 0 else None,
                    capsize=2,
                )
                lowest = min(lowest, mean - spread)
        axis.set_ylim(max(0.0, lowest - 0.05), None)
        axis.set_xticks(range(len(noises)), [f"{noise:g}" for noise in noises])
        axis.set_xlabel("noise (fraction of added images)")
        axis.set_ylabel(_LABELS[metric])
        axis.set_title(backbone)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    figure.suptitle("Ablation (axes do not start at 0)", fontsize=10)
    return figure


def setting_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Draw metrics against every numeric setting that varies while all others are equal.

    Returns:
        Figures by the setting's key.
    """
    metrics = [name for name in ("I-AUROC", "P-AP") if any(run.metric(name) for run in runs)]
    figures = {}
    for key in _numeric_keys(runs):
        lines = _lines_over(runs, key)
        if not lines or not metrics:
            continue
        figure, axes = grid(len(metrics), columns=len(metrics), size=(4.0, 2.9))
        for axis, metric in zip(axes, metrics, strict=True):
            for place, (label, members) in enumerate(sorted(lines.items())):
                points: dict[float, list[float | None]] = {}
                for run in members:
                    points.setdefault(float(run.values[key]), []).append(run.metric(metric))
                _draw_line(axis, points, place=place, label=label, method=members[0].method)
            axis.set_xlabel(key)
            axis.set_ylabel(_LABELS[metric])
            if _spans_decades([float(run.values[key]) for run in runs]):
                log_axis(axis)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
        figure.suptitle(f"{key} ({_seeds(runs)})", fontsize=10)
        figures[key] = figure
    return figures


def _against_noise(
    runs: Sequence[Run], names: Sequence[str], title: str, *, fewest: int
) -> Figure | None:
    """Draw metrics against noise; ``None`` for fewer noise levels than ``fewest``."""
    noises = sorted({run.noise for run in runs if run.noise is not None})
    metrics = [name for name in names if any(run.metric(name) is not None for run in runs)]
    if len(noises) < fewest or not metrics:
        return None
    figure, axes = grid(len(metrics), columns=len(metrics), size=(3.1, 2.9))
    backbones = sorted({run.backbone for run in runs})
    for axis, metric in zip(axes, metrics, strict=True):
        for place, backbone in enumerate(backbones):
            for order, method in enumerate(METHODS):
                # Shifted, so that error bars of different methods do not overlap.
                shift = (noises[-1] - noises[0]) * (order - 1) / 120
                points = {z + shift: _values(runs, metric, backbone, method, z) for z in noises}
                colour = place if len(backbones) > 1 else order
                label = row_name(backbone, method)
                _draw_line(axis, points, place=colour, label=label, method=method)
        axis.set_xticks(noises, [f"{noise:g}" for noise in noises])
        axis.set_xlabel("noise (fraction of added images)")
        axis.set_ylabel(_LABELS[metric])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    figure.suptitle(f"{title} ({_seeds(runs)})", fontsize=10)
    return figure


def _seeds(runs: Sequence[Run]) -> str:
    seeds = len({run.seed for run in runs})
    return f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"


def _draw_line(
    axis: Axes, points: dict[float, list[Any]], *, place: int, label: str, method: Method
) -> None:
    known = {x: [v for v in values if v is not None] for x, values in sorted(points.items())}
    known = {x: values for x, values in known.items() if values}
    if not known:
        return
    summaries = [_mean_and_spread(values) for values in known.values()]
    axis.errorbar(
        list(known),
        [mean for mean, _ in summaries],
        yerr=[spread for _, spread in summaries] if any(s for _, s in summaries) else None,
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[METHODS.index(method)],
        markerfacecolor="white" if method == "plain" else None,
        linestyle=_STYLES.get(method, (0, (3, 1, 1, 1))),
        markersize=4,
        linewidth=1.4,
        capsize=2,
        label=label,
    )


def _values(
    runs: Iterable[Run], metric: str, backbone: str, method: str, noise: float
) -> list[float]:
    found = (
        run.metric(metric)
        for run in runs
        if (run.backbone, run.method, run.noise) == (backbone, method, noise)
    )
    return [value for value in found if value is not None]


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _numeric_keys(runs: Sequence[Run]) -> list[str]:
    """Return the settings, other than seed and noise, with several values, all numbers."""
    keys = sorted({key for run in runs for key in run.values} - {"seed", "noise", "data.noise"})

    def varies(key: str) -> bool:
        texts = {run.values.get(key, "null") for run in runs}
        return len(texts) > 1 and all(type(json.loads(text)) in (int, float) for text in texts)

    return [key for key in keys if varies(key)]


def _lines_over(runs: Sequence[Run], key: str) -> dict[str, list[Run]]:
    """Return the runs that differ in one setting (and the seed) only, by what they share."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        others = tuple(item for item in sorted(run.values.items()) if item[0] not in ("seed", key))
        groups.setdefault(others, []).append(run)
    lines: dict[str, list[Run]] = {}
    for group in groups.values():
        if len({run.values[key] for run in group}) < 2:
            continue
        run = group[0]
        name = run.row
        if run.noise is not None:
            name = f"{name}, noise {run.noise:g}"
        if name in lines:  # another setting varies, too
            name = f"{name} ({len(lines) + 1})"
        lines[name] = group
    return lines


def _spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= 20
