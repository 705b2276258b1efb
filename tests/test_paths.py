"""Folders with odd names, from the command line to the last file that names them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from meds_plugin.review.decisions import apply_decisions
from tests.conftest import PROJECT
from tests.processes import run
from tests.test_run import read_config, rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Refuse

ODD = "Größe 螺丝 (1) [a] {b}, c; d&e = #f 'g' \"h\" !~%@+^$i\\"
SHORT = (
    "data=mvtec",
    "noise=0.2",
    "data.image_size=32",
    "data.batch_size=4",
    "evaluation.resize=32",
    "steps.distill=2",
    "steps.finetune=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "figures=false",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images in MVTec's layout."""
    rng = np.random.default_rng(0)
    folder = tmp_path / ODD / "images, 1"
    for part in ("train/good", "test/good", "test/bent"):
        for number in range(6):
            file = folder / "nut" / part / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    return folder


def test_a_run_its_resumption_and_the_run_after_its_review(root: Path, tmp_path: Path) -> None:
    here, elsewhere = root.parent, tmp_path / "elsewhere"
    elsewhere.mkdir()
    given = ("data.root=images, 1", "hydra.run.dir=a run", "cache.dir=its, cache")
    status, _, err = run(*SHORT, *given, "trainer.max_steps=3", cwd=here)
    assert status == 0, err
    folder = here / "a run"
    assert read_config(folder).data.root == str(root)
    assert read_config(folder).cache.dir == str(here / "its, cache")
    status, _, err = run(f"resume=../{ODD}/a run", "trainer.max_steps=4", cwd=elsewhere)
    assert status == 0, err
    assert json.loads((folder / "metrics.json").read_text())["protocol"]["steps_done"] == 4
    assert {path.name for path in here.iterdir()} == {root.name, "a run", "its, cache"}
    decisions = here / "decisions.csv"
    dropped = rows(folder / "manifest.csv")[0]["path"]
    decisions.write_text(f"path,decision\n{dropped},drop\n")
    applied = apply_decisions(folder, decisions)
    status, _, err = run(*shlex.split(applied.command)[3:], cwd=elsewhere)
    assert status == 0, err
    assert dropped not in {row["path"] for row in rows(applied.target / "manifest.csv")}


def test_the_home_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    given = ("data.root=~/images, 1", "hydra.run.dir=~/run", "method=memory", "review=false")
    status, _, err = run(*SHORT, *given, cwd=tmp_path)
    assert status == 0, err
    assert (root.parent / "run" / "metrics.json").exists()
    (root.parent / "run" / "metrics.json").unlink()
    assert run("resume=~/run", cwd=tmp_path)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [ODD]


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("data.root", ["data=mvtec"]),
        ("data.root", ["data=folder"]),
        ("data.file", ["data=csv"]),
        ("data.exclude", [*SHORT, "data.root=ROOT"]),
        ("noise_file", [*SHORT, "data.root=ROOT", "noise_protocol=split_file"]),
        ("encoder.weights", []),
        ("resume", []),
    ],
)
def test_every_key_that_takes_a_path_takes_it_as_it_stands(
    refuse: Refuse, root: Path, key: str, others: list[str]
) -> None:
    missing = f"{root.parent}/{ODD}"
    given = [each.replace("ROOT", str(root)) for each in others]
    assert missing in refuse(*given, f"{key}={missing}")


def test_folders_relative_to_the_root(refuse: Refuse, root: Path) -> None:
    shutil.move(root / "nut" / "test" / "bent", root / "nut" / ODD)
    for key in ("test", "masks", "normal", "anomalous"):
        for value in (f"none {ODD}", f"[none {ODD}]".replace(",", ";")):
            named = value.strip("[]") if key != "masks" else value
            assert named in refuse("data=folder", f"data.root={root}", f"data.{key}={value}")


def test_help_shows_how_paths_are_given() -> None:
    command = [sys.executable, "-m", "meds_plugin.run", "--help"]
    shown = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert '"data.root=photos/line 3 (new), Größe 2"' in shown.stdout
    assert "hydra.cc" not in shown.stdout
