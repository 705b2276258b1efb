from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from omegaconf import OmegaConf

from meds_plugin.runs.state import anchor_paths, is_finished

if TYPE_CHECKING:
    from pathlib import Path


def test_paths_become_absolute_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create(
        {
            "data": {"root": 2024, "file": None, "exclude": "/else/where.txt", "image_size": 32},
            "encoder": {"weights": "random"},
            "noise_file": "lists/a.csv",
            "cache": {"dir": "kept"},
        }
    )
    anchor_paths(config)
    assert OmegaConf.to_container(config) == {
        "data": {
            "root": str(tmp_path / "2024"),
            "file": None,
            "exclude": "/else/where.txt",
            "image_size": 32,
        },
        "encoder": {"weights": "random"},
        "noise_file": str(tmp_path / "lists/a.csv"),
        "cache": {"dir": str(tmp_path / "kept")},
    }


@pytest.mark.parametrize(("done", "finished"), [(9, False), (10, True)])
def test_a_run_is_finished_when_all_steps_are_in_its_results(
    tmp_path: Path, done: int, finished: bool
) -> None:
    metrics = tmp_path / "metrics.json"
    assert not is_finished(metrics)
    metrics.write_text(json.dumps({"protocol": {"steps_done": done, "total_steps": 10}}))
    assert is_finished(metrics) == finished
