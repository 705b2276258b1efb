"""Figures of runs and sweeps; they need matplotlib (extra ``plots``)."""

from __future__ import annotations

import re
from textwrap import shorten
from typing import TYPE_CHECKING

from meds_plugin.figures.of_run import inspection, scores, selection, theorem
from meds_plugin.figures.of_sweep import ablation, against_noise, ranking, setting_curves
from meds_plugin.figures.style import save, styled
from meds_plugin.figures.tiles import tiles
from meds_plugin.runs.collection import read_run, separate
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from meds_plugin.figures.examples import TestExamples
    from meds_plugin.runs.collection import Run
    from meds_plugin.runs.write import RunFolder

__all__ = ["draw_after_run", "draw_run", "draw_sweep"]


def draw_run(
    run: Run, *, beside: Run | None = None, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw a run's figures into ``figures`` in its folder; those without data are left out.

    Args:
        run: The run.
        beside: The plain detector's, for the inspection curve.
        formats: Some of ``png``, ``svg``, ``pdf``.

    Returns:
        The files written.

    Raises:
        UserError: If matplotlib is not installed.
    """
    with styled():
        drawn = {
            "scores": scores(run),
            "selection": selection(run),
            "theorem1": theorem(run),
            "tiles": tiles(run),
            "inspection": inspection(run, beside),
        }
        return _write(drawn, run.path / "figures", formats)


def draw_sweep(
    runs: Sequence[Run], folder: Path, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw a sweep's figures; runs of different settings come into figures of their own.

    Args:
        runs: The finished runs.
        folder: Where the figures go.
        formats: Some of ``png``, ``svg``, ``pdf``.

    Returns:
        The files written.

    Raises:
        UserError: If matplotlib is not installed.
    """
    with styled():
        return _write(_sweep_figures(runs), folder, formats)


def _sweep_figures(runs: Sequence[Run]) -> dict[str, Figure | None]:
    drawn: dict[str, Figure | None] = {}
    groups = separate(runs)
    for number, (group, values) in enumerate(groups, start=1):
        suffix = f"_{number}" if len(groups) > 1 else ""
        own = {
            f"noise{suffix}": against_noise(group),
            f"ablation{suffix}": ablation(group),
            f"ranking{suffix}": ranking(group),
        }
        note = ", ".join([f"data {group[0].data}", *(f"{k}={v}" for k, v in values.items())])
        for figure in own.values():
            if figure is not None:
                figure.suptitle(
                    f"{figure.get_suptitle()}\n{shorten(note, int(13 * figure.get_figwidth()))}",
                    fontsize=9,
                )
        drawn |= own
    for key, figure in setting_curves(runs).items():
        drawn[f"setting_{re.sub(r'[^0-9A-Za-z]+', '_', key)}"] = figure
    return drawn


def draw_after_run(folder: RunFolder, examples: TestExamples) -> str:
    """Store what a run's figures need, draw them, and say so; nothing that fails fails the run.

    Args:
        folder: The finished run's.
        examples: Test images with their maps.

    Returns:
        One line.
    """
    try:
        folder.write_examples(examples.arrays())
        files = draw_run(read_run(folder.path))
    except UserError as reason:
        return f"no figures: {reason}"
    except Exception as error:
        return f"no figures: {type(error).__name__}: {error}"
    return f"{len(files)} figures are in {folder.path / 'figures'}"


def _write(figures: dict[str, Figure | None], folder: Path, formats: Sequence[str]) -> list[Path]:
    written: list[Path] = []
    for name, figure in figures.items():
        if figure is not None:
            written += save(figure, folder, name, formats)
    return written
