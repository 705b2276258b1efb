"""Runs on one category each, put together as a run on all of them: the single-class protocol."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from meds_plugin.evaluation.categories import mean_metrics
from meds_plugin.runs.collection import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["join_categories"]

_CATEGORIES = "data.categories"


def join_categories(runs: Sequence[Run]) -> list[Run]:
    """Put together what differs in its only category alone.

    Args:
        runs: Finished runs. Those on several categories, and those that have no counterpart on
            another category, stay as they are.

    Returns:
        Runs whose metrics are means over categories, whose seconds are sums, and whose memory is
        the largest.
    """
    kinds: dict[object, list[Run]] = {}
    for run in runs:
        alone = len(run.categories) == 1
        kinds.setdefault(_kind(run) if alone else run.path, []).append(run)
    found: list[Run] = []
    for members in kinds.values():
        names = [name for run in members for name in run.categories]
        apart = len(set(names)) == len(names)  # else a run is there twice
        found += [_joined(members)] if len(members) > 1 and apart else members
    return found


def _kind(run: Run) -> object:
    """Return what runs on different categories share."""
    settings = tuple(item for item in run.settings if not item[0].startswith(_CATEGORIES))
    return settings, run.detector, run.method, run.noise, run.seed


def _joined(runs: Sequence[Run]) -> Run:
    categories = {
        name: values for run in runs for name, values in run.metrics["categories"].items()
    }
    rankings = {
        key: [value for run in runs if (value := run.metric(key)) is not None]
        for key in ("auprc", "inspection_depth")
    }
    held = [value for run in runs if (value := run.gigabytes) is not None]
    metrics: dict[str, Any] = {
        **runs[0].metrics,
        "categories": dict(sorted(categories.items())),
        "mean": mean_metrics(list(categories.values())),
        "ranking": {
            key: statistics.fmean(values) if values else None for key, values in rankings.items()
        },
        "seconds": {
            stage: sum(run.metrics["seconds"][stage] for run in runs)
            for stage in runs[0].metrics["seconds"]
        },
        "memory_gb": {"host": max(held, default=None)},
    }
    config = {**runs[0].config, "data": {**runs[0].config["data"], "categories": "each alone"}}
    return Run(runs[0].path, metrics, config, parts=tuple(runs))
