from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.transforms import Preprocess
from meds_plugin.figures import draw_after_run, draw_run, draw_sweep
from meds_plugin.figures.examples import ExampleImages
from meds_plugin.runs.collection import read_run
from meds_plugin.runs.write import RunFolder
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def test_files_are_written_in_every_format_and_equal_each_time(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0"))
    names = {"scores", "selection", "theorem1", "tiles", "inspection"}
    files = draw_run(run, formats=("png", "svg"))
    assert {file.name for file in files} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    content = [file.read_bytes() for file in files]
    draw_run(run, formats=("png", "svg"))
    assert [file.read_bytes() for file in files] == content
    assert sorted((tmp_path / "0" / "figures").iterdir()) == sorted(files)  # no temporary files


def test_runs_with_different_settings_get_separate_figures(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / f"{steps}_{noise}", noise=noise, steps__distill=steps))
        for steps in (5, 9)
        for noise in (0.1, 0.4)
    ]
    files = draw_sweep(runs, tmp_path / "figures")
    assert {"noise_1.png", "noise_2.png", "setting_steps_distill.png"} <= {f.name for f in files}


def test_a_run_never_fails_for_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(write_run(tmp_path / "0"))
    none = ExampleImages(ImageDataset([], Preprocess(8)))
    assert draw_after_run(folder, none) == f"5 figures are in {tmp_path / '0' / 'figures'}"
    (tmp_path / "0" / "examples.npz").write_bytes(b"no archive")
    assert draw_after_run(folder, none).startswith("no figures: ValueError")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'meds-plugin[plots]'" in draw_after_run(folder, none)
