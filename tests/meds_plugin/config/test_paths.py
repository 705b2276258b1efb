from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from meds_plugin.config.paths import anchor_paths

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
