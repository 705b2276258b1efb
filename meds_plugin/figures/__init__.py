"""Figures of runs and sweeps; they need matplotlib (extra ``plots``)."""

from __future__ import annotations

import re
from textwrap import shorten
from typing import TYPE_CHECKING

from meds_plugin.figures.example_tiles import tiles_figure
from meds_plugin.figures.run_figures import (
    inspection_figure,
    score_figure,
    selection_figure,
    theorem1_figure,
)
from meds_plugin.figures.style import save, styled
from meds_plugin.figures.sweep_figures import (
    ablation_figure,
    noise_figure,
    ranking_figure,
    setting_figures,
)
from meds_plugin.runs.collection import read_run, separate
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from meds_plugin.figures.examples import ExampleImages
    from meds_plugin.runs.collection import Run
    from meds_plugin.runs.write import RunFolder

__all__ = ["draw_after_run", "draw_run", "draw_sweep"]


def draw_run(
    run: Run, *, beside: Run | None = None, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw a run's figures into ``figures`` in its folder, without those that lack data.

    Args:
        run: The run.
        beside: Another run, usually the plain detector's, for the inspection curve.
        formats: Some of ``png``, ``svg``, ``pdf``.

    Returns:
        The files written.

    Raises:
        UserError: If matplotlib is not installed.
    """
    with styled():
        figures = {
            "scores": score_figure(run),
            "selection": selection_figure(run),
            "theorem1": theorem1_figure(run),
            "tiles": tiles_figure(run),
            "inspection": inspection_figure(run, beside),
        }
        return _save_all(figures, run.path / "figures", formats)


def draw_sweep(
    runs: Sequence[Run], folder: Path, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw a sweep's figures; runs with different settings get separate figures.

    Args:
        runs: The finished runs.
        folder: The folder of the figures.
        formats: Some of ``png``, ``svg``, ``pdf``.

    Returns:
        The files written.

    Raises:
        UserError: If matplotlib is not installed.
    """
    with styled():
        return _save_all(_sweep_figures(runs), folder, formats)


def draw_after_run(folder: RunFolder, examples: ExampleImages) -> str:
    """Store a run's example images and draw its figures; a failure does not fail the run.

    Args:
        folder: The finished run's folder.
        examples: Test images with their maps.

    Returns:
        One line for the user.
    """
    try:
        folder.write_examples(examples.arrays())
        files = draw_run(read_run(folder.path))
    except UserError as reason:
        return f"no figures: {reason}"
    except Exception as error:
        return f"no figures: {type(error).__name__}: {error}"
    return f"{len(files)} figures are in {folder.path / 'figures'}"


def _sweep_figures(runs: Sequence[Run]) -> dict[str, Figure | None]:
    figures: dict[str, Figure | None] = {}
    groups = separate(runs)
    for number, (group, settings) in enumerate(groups, start=1):
        suffix = f"_{number}" if len(groups) > 1 else ""
        own = {
            f"noise{suffix}": noise_figure(group),
            f"ablation{suffix}": ablation_figure(group),
            f"ranking{suffix}": ranking_figure(group),
        }
        note = ", ".join([f"data {group[0].data}", *(f"{k}={v}" for k, v in settings.items())])
        for figure in own.values():
            if figure is not None:
                line = shorten(note, int(13 * figure.get_figwidth()))
                figure.suptitle(f"{figure.get_suptitle()}\n{line}", fontsize=9)
        figures |= own
    for key, figure in setting_figures(runs).items():
        figures[f"setting_{re.sub(r'[^0-9A-Za-z]+', '_', key)}"] = figure
    return figures


def _save_all(
    figures: Mapping[str, Figure | None], folder: Path, formats: Sequence[str]
) -> list[Path]:
    files: list[Path] = []
    for name, figure in figures.items():
        if figure is not None:
            files += save(figure, folder, name, formats)
    return files
