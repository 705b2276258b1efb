from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.figures.sweep_figures import (
    ablation_figure,
    noise_figure,
    ranking_figure,
    setting_figures,
)
from meds_plugin.runs.collection import read_run
from tests.made_up import write_run, write_sweep
from tests.meds_plugin.figures.axes import panels, x_of, y_of

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def test_metrics_against_noise_have_a_line_per_method_over_seeds(tmp_path: Path) -> None:
    runs = [read_run(path) for path in write_sweep(tmp_path)]
    first = panels(noise_figure(runs))[0]
    assert first.get_ylabel() == "image AUROC"
    assert [str(each.get_label()) for each in first.containers] == [
        "dinomaly, meds",
        "dinomaly, plain",
        "dinomaly, memory",
    ]
    line = first.containers[0].lines[0]  # type: ignore[attr-defined]
    assert y_of(line) == pytest.approx([0.85, 0.75])
    assert noise_figure(runs[:1]) is None
    depth = panels(ranking_figure(runs))[1]
    assert "lower is better" in depth.get_ylabel()


def test_the_ablation_has_a_bar_per_method(tmp_path: Path) -> None:
    runs = [read_run(path) for path in write_sweep(tmp_path)]
    image, _ = panels(ablation_figure(runs))
    assert len(image.patches) == 6  # three methods at two noise levels
    assert ablation_figure([run for run in runs if run.method == "plain"]) is None


def test_a_setting_that_varies_alone_gets_a_curve(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / f"{ratio}_{seed}", memory__ratio=ratio, seed=seed, value=v))
        for ratio, v in ((0.01, 0.5), (0.1, 0.9), (1.0, 0.7))
        for seed in (0, 1)
    ]
    figures = setting_figures(runs)
    assert list(figures) == ["memory.ratio"]
    axis = panels(figures["memory.ratio"])[0]
    assert (axis.get_xlabel(), axis.get_xscale()) == ("memory.ratio", "log")
    line = axis.containers[0].lines[0]  # type: ignore[attr-defined]
    assert x_of(line) == [0.01, 0.1, 1.0]
    assert y_of(line) == [0.5, 0.9, 0.7]
