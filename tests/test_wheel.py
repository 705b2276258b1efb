"""The wheel holds everything a run needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PROJECT
from tests.test_run import TINY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip would lay it out."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*build, "--outdir", str(out), str(PROJECT)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_holds_both_packages_and_the_configurations(installed: Path) -> None:
    for name in (
        "meds_plugin/py.typed",
        "backbones/py.typed",
        "meds_plugin/conf/config.yaml",
        "meds_plugin/review/assets/page.html",
        "meds_plugin/review/assets/main.js",
        "meds_plugin/runs/published.csv",
        "meds_plugin/conf/experiment/paper_mvtec.yaml",
        "meds_plugin/conf/experiment/paper_selection.yaml",
        "meds_plugin/conf/hydra/launcher/slurm.yaml",
    ):
        assert (installed / name).is_file(), name
    assert not (installed / "tests").exists()
    shipped = {p.relative_to(installed / "meds_plugin/conf") for p in installed.rglob("*.yaml")}
    assert shipped == {p.relative_to(PROJECT / "conf") for p in (PROJECT / "conf").rglob("*.yaml")}


def test_finds_its_configurations_from_another_folder(installed: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "meds_plugin.run", "--cfg", "job", "encoder=dinov2_reg_base"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "vit_base_patch14_reg4_dinov2" in process.stdout


def test_runs_a_sweep_from_another_folder(installed: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [
            *(sys.executable, "-m", "meds_plugin.run", "-m", "method=memory", "noise=0.1"),
            *TINY,
            "hydra.sweep.dir=sweep",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(installed),
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "sweep" / "job" / "metrics.json").is_file()
