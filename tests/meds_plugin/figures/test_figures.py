from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.transforms import Preprocess
from meds_plugin.figures import draw_after_run, draw_run, draw_sweep
from meds_plugin.figures.examples import TestExamples
from meds_plugin.figures.of_run import inspection, scores, selection, theorem
from meds_plugin.figures.of_sweep import ablation, against_noise, ranking, setting_curves
from meds_plugin.figures.tiles import tiles
from meds_plugin.plot import main
from meds_plugin.runs.collection import Run, read_run
from meds_plugin.runs.write import RunFolder
from tests.made_up import write_run
from tests.trained import called

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def labels(axis: Axes) -> list[str]:
    return [str(line.get_label()) for line in axis.lines]


def x_of(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def y_of(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def panels(figure: Figure | None) -> list[Axes]:
    assert figure is not None
    shown = [axis for axis in figure.axes if axis.get_visible() and axis.axison]
    for axis in shown:
        assert axis.get_ylabel()
    return shown


def test_scores_show_truth_and_threshold_where_they_are_known(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    nut, tile = panels(scores(run))
    assert [nut.get_title(), tile.get_title()] == ["nut", "tile"]
    assert "score" in nut.get_xlabel()
    heights = sum(bar.get_height() for bar in nut.containers[1])
    assert heights == 8
    assert [x_of(line)[0] for line in nut.lines] == [1.4]
    blind = read_run(write_run(tmp_path / "1", method="plain", known=False))
    nut, _ = panels(scores(blind))
    assert nut.lines[:] == []
    assert sum(bar.get_height() for bar in nut.patches) == 30  # type: ignore[attr-defined]


def test_selection_shows_what_is_kept_and_how_much_of_it_is_contaminated(tmp_path: Path) -> None:
    top, _, bottom, _ = panels(selection(read_run(write_run(tmp_path / "0"))))
    assert y_of(top.lines[0]) == [20, 22, 24, 26]
    assert y_of(top.lines[1]) == [0, 0, 1, 2]
    assert y_of(bottom.lines[0]) == pytest.approx([2, 1.8, 1.6, 1.4])
    top, *_ = panels(selection(read_run(write_run(tmp_path / "1", known=False))))
    assert len(top.lines) == 1
    assert selection(read_run(write_run(tmp_path / "2", method="plain"))) is None


def test_theorem_shows_means_gap_and_auroc(tmp_path: Path) -> None:
    means, gap, area = panels(theorem(read_run(write_run(tmp_path / "0"))))
    assert labels(means)[:2] == ["normal", "anomalous"]
    assert y_of(gap.lines[-2]) == pytest.approx([0.199, 0.19, 0.1])
    assert y_of(area.lines[0]) == [0.9] * 3
    assert theorem(read_run(write_run(tmp_path / "1", method="plain"))) is None


def test_inspection_shows_the_plain_detector_beside(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    (axis,) = panels(inspection(run, read_run(write_run(tmp_path / "1", method="plain"))))
    named = [name.split(":")[0] for name in labels(axis) if not name.startswith("_")]
    assert named == ["meds", "memory scores", "plain (beside)", "perfect list"]
    found = y_of(axis.lines[0])
    assert (found[0], found[-1]) == (0, 1)
    assert inspection(read_run(write_run(tmp_path / "2", known=False))) is None


def test_tiles_share_one_scale(tmp_path: Path) -> None:
    figure = tiles(read_run(write_run(tmp_path / "0")))
    assert figure is not None
    drawn = [image for axis in figure.axes for image in axis.images if image.cmap.name == "inferno"]
    assert len(drawn) == 3
    assert {image.get_clim() for image in drawn} == {(0.0, 2.0)}
    assert any(text.get_text() == "unknown" for axis in figure.axes for text in axis.texts)


def test_metrics_against_noise_have_a_line_a_method_and_bars_over_seeds(tmp_path: Path) -> None:
    runs = sweep(tmp_path)
    figure = against_noise(runs)
    first = panels(figure)[0]
    assert first.get_ylabel() == "image AUROC"
    assert [str(each.get_label()) for each in first.containers] == [
        "dinomaly, meds",
        "dinomaly, plain",
        "dinomaly, memory",
    ]
    line = first.containers[0].lines[0]  # type: ignore[attr-defined]
    assert y_of(line) == pytest.approx([0.85, 0.75])
    assert against_noise(runs[:1]) is None
    depth = panels(ranking(runs))[1]
    assert "lower is better" in depth.get_ylabel()


def test_the_ablation_has_a_bar_a_method(tmp_path: Path) -> None:
    runs = sweep(tmp_path)
    image, _ = panels(ablation(runs))
    assert len(image.patches) == 6  # three methods at two noise levels
    assert ablation([run for run in runs if run.method == "plain"]) is None


def test_a_setting_that_varies_alone_gets_a_curve(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / f"{ratio}_{seed}", memory__ratio=ratio, seed=seed, value=v))
        for ratio, v in ((0.01, 0.5), (0.1, 0.9), (1.0, 0.7))
        for seed in (0, 1)
    ]
    figures = setting_curves(runs)
    assert list(figures) == ["memory.ratio"]
    axis = panels(figures["memory.ratio"])[0]
    assert (axis.get_xlabel(), axis.get_xscale()) == ("memory.ratio", "log")
    line = axis.containers[0].lines[0]  # type: ignore[attr-defined]
    assert x_of(line) == [0.01, 0.1, 1.0]
    assert y_of(line) == [0.5, 0.9, 0.7]


def test_files_are_written_in_every_format_and_equal_each_time(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    names = {"scores", "selection", "theorem1", "tiles", "inspection"}
    files = draw_run(run, formats=("png", "svg"))
    assert {file.name for file in files} == {
        f"{n}.{kind}" for n in names for kind in ("png", "svg")
    }
    content = [file.read_bytes() for file in files]
    draw_run(run, formats=("png", "svg"))
    assert [file.read_bytes() for file in files] == content
    assert sorted((tmp_path / "0" / "figures").iterdir()) == sorted(files)  # nothing half done


def test_runs_of_other_settings_get_figures_of_their_own(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / f"{steps}_{noise}", noise=noise, steps__distill=steps))
        for steps in (5, 9)
        for noise in (0.1, 0.4)
    ]
    files = draw_sweep(runs, tmp_path / "figures")
    assert {"noise_1.png", "noise_2.png", "setting_steps_distill.png"} <= {f.name for f in files}


def test_a_run_never_fails_for_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(write_run(tmp_path / "0"))
    none = TestExamples(ImageDataset([], Preprocess(8)))
    assert draw_after_run(folder, none) == f"5 figures are in {tmp_path / '0' / 'figures'}"
    (tmp_path / "0" / "examples.npz").write_bytes(b"no archive")
    assert draw_after_run(folder, none).startswith("no figures: ValueError")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'meds-plugin[plots]'" in draw_after_run(folder, none)


def test_command_line_draws_runs_and_sweeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "sweep")
    status, out, _ = called(main, capsys, str(tmp_path / "sweep"))
    assert status == 0
    assert str(tmp_path / "sweep" / "figures" / "noise.png") in out.splitlines()
    plain = write_run(tmp_path / "plain", method="plain")
    called(main, capsys, str(plain), "--format", "pdf")
    assert (plain / "figures" / "scores.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "no such folder"),
        (["run", "--format", "gif"], "choose from png, svg, pdf"),
        (["run", "--beside", "other"], "are not"),
        (["run", "--beside", "nowhere"], "metrics.json is missing"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: Sequence[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "other", noise=0.1)
    monkeypatch.chdir(tmp_path)
    status, _, err = called(main, capsys, *arguments)
    assert status == 2
    (line,) = err.splitlines()
    assert expected in line


def sweep(root: Path) -> list[Run]:
    """Three methods at two noise levels, one of them with two seeds."""
    runs = []
    for place, noise in enumerate((0.1, 0.4)):
        base = 0.8 - place / 10
        for method, seed, value in (
            ("meds", 0, base),
            ("meds", 1, base + 0.1),
            ("plain", 0, base - 0.1),
            ("memory", 0, base - 0.2),
        ):
            folder = root / f"{noise}_{method}_{seed}"
            runs.append(
                read_run(write_run(folder, noise=noise, method=method, seed=seed, value=value))
            )
    assert len({run.path for run in runs}) == 8
    assert np.isfinite([run.metric("I-AUROC") for run in runs]).all()  # type: ignore[arg-type]
    return runs
