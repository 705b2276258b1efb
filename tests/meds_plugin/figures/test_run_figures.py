from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.figures.run_figures import (
    inspection_figure,
    score_figure,
    selection_figure,
    theorem1_figure,
)
from meds_plugin.runs.collection import read_run
from tests.made_up import write_run
from tests.meds_plugin.figures.axes import panels, x_of, y_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def labels(axis: Axes) -> list[str]:
    return [str(line.get_label()) for line in axis.lines]


def test_scores_show_known_contamination_and_the_threshold(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    nut, tile = panels(score_figure(run))
    assert [nut.get_title(), tile.get_title()] == ["nut", "tile"]
    assert "score" in nut.get_xlabel()
    heights = sum(bar.get_height() for bar in nut.containers[1])
    assert heights == 8
    assert [x_of(line)[0] for line in nut.lines] == [1.4]
    unknown = read_run(write_run(tmp_path / "1", method="plain", known=False))
    nut, _ = panels(score_figure(unknown))
    assert nut.lines[:] == []
    assert sum(bar.get_height() for bar in nut.patches) == 30  # type: ignore[attr-defined]


def test_selection_shows_selected_and_contaminated_images(tmp_path: Path) -> None:
    top, _, bottom, _ = panels(selection_figure(read_run(write_run(tmp_path / "0"))))
    assert labels(top) == ["selected", "of these, contaminated"]
    assert y_of(top.lines[0]) == [20, 22, 24, 26]
    assert y_of(top.lines[1]) == [0, 0, 1, 2]
    assert y_of(bottom.lines[0]) == pytest.approx([2, 1.8, 1.6, 1.4])
    top, *_ = panels(selection_figure(read_run(write_run(tmp_path / "1", known=False))))
    assert len(top.lines) == 1
    assert selection_figure(read_run(write_run(tmp_path / "2", method="plain"))) is None


def test_theorem1_shows_means_gap_and_auroc(tmp_path: Path) -> None:
    means, gap, area = panels(theorem1_figure(read_run(write_run(tmp_path / "0"))))
    assert labels(means)[:2] == ["normal", "anomalous"]
    assert y_of(gap.lines[-2]) == pytest.approx([0.199, 0.19, 0.1])
    assert y_of(area.lines[0]) == [0.9] * 3
    assert theorem1_figure(read_run(write_run(tmp_path / "1", method="plain"))) is None


def test_inspection_compares_with_earlier_stages_and_another_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    plain = read_run(write_run(tmp_path / "1", method="plain"))
    (axis,) = panels(inspection_figure(run, plain))
    named = [name.split(":")[0] for name in labels(axis) if not name.startswith("_")]
    assert named == ["meds", "memory scores", "plain run", "perfect ranking"]
    found = y_of(axis.lines[0])
    assert (found[0], found[-1]) == (0, 1)
    assert inspection_figure(read_run(write_run(tmp_path / "2", known=False))) is None
