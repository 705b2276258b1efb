from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from meds_plugin.config.loggers import build_loggers
from meds_plugin.utils.errors import UserError

FOLDER = Path("/runs/sweep/noise-0.4")
TARGET = "lightning.pytorch.loggers.CSVLogger"


def test_the_runs_place_stands_in_the_arguments() -> None:
    node = OmegaConf.create(
        {
            "a": {"_target_": TARGET, "save_dir": "{root}/logs", "name": "{sweep}", "prefix": "p"},
            "b": {"_target_": TARGET, "save_dir": "{folder}", "name": "of {name}"},
            "c": None,
        }
    )
    first, second = build_loggers(node, FOLDER, sweep=FOLDER.parent)
    assert isinstance(first, CSVLogger)
    assert (first.save_dir, first.name) == ("/runs/sweep/logs", "sweep")
    assert (second.save_dir, second.name) == (str(FOLDER), "of noise-0.4")
    alone, _ = build_loggers(node, FOLDER, sweep=None)
    assert (alone.save_dir, alone.name) == (f"{FOLDER}/logs", "lightning_logs")  # its own default
    assert build_loggers(None, FOLDER, sweep=None) == []


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    node = OmegaConf.create({"wandb": {"_target_": "tests.meds_plugin.config.test_loggers.absent"}})
    with pytest.raises(UserError, match=r'logger=wandb: pip install "meds-plugin\[loggers\]"'):
        build_loggers(node, FOLDER, sweep=None)
    monkeypatch.setitem(sys.modules, "gone", None)
    node = OmegaConf.create({"csv": {"_target_": TARGET, "save_dir": ".", "colour": 1}})
    with pytest.raises(UserError, match=r"logger\.csv .*colour"):
        build_loggers(node, FOLDER, sweep=None)


def absent() -> None:
    msg = "wandb"
    raise ModuleNotFoundError(msg)
