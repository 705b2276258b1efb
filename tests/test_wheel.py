"""What is published holds everything a run needs, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PROJECT
from tests.test_run import TINY

if TYPE_CHECKING:
    from email.message import Message


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(PROJECT)]
    subprocess.run(build, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def installed(published: Path) -> Path:
    """The wheel's content, as pip would lay it out."""
    (wheel,) = published.glob("*.whl")
    shutil.unpack_archive(wheel, published / "site", "zip")
    return published / "site"


@pytest.fixture(scope="module")
def metadata(installed: Path) -> Message:
    (file,) = installed.glob("*.dist-info/METADATA")
    return Parser().parsestr(file.read_text())


def start(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


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
    shipped = {p.relative_to(installed / "meds_plugin/conf") for p in installed.rglob("*.yaml")}
    assert shipped == {p.relative_to(PROJECT / "conf") for p in (PROJECT / "conf").rglob("*.yaml")}


def test_holds_nothing_else(published: Path, installed: Path) -> None:
    packages = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert packages == {"meds_plugin", "backbones"}
    (sdist,) = published.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()]
    documents = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "README.md", "SECURITY.md"}
    own = {"meds_plugin", "backbones", "conf", "docs", "tests"}
    made = {"LICENSE", "mkdocs.yml", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert {name.parts[0] for name in names} == own | documents | made
    assert {name.suffix for name in names if name.parts[0] == "tests"} == {".py"}
    for file in published.glob("meds_plugin-*"):
        assert file.stat().st_size < 2e6, file


def test_the_metadata_tell_what_it_is(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.10"
    pythons = [name for name in metadata.get_all("Classifier", []) if ":: Python :: 3." in name]
    assert [name.rpartition(" ")[2] for name in pythons] == ["3.10", "3.11", "3.12", "3.13"]
    assert any(url.startswith("Paper, ") for url in metadata.get_all("Project-URL", []))


def test_the_version_is_that_of_the_metadata(
    installed: Path, tmp_path: Path, metadata: Message
) -> None:
    done = start(installed, tmp_path, "-m", "meds_plugin", "--version")
    assert done.stdout == f"meds-plugin {metadata['Version']}\n"


def test_its_one_script_starts_every_command(installed: Path, tmp_path: Path) -> None:
    (file,) = installed.glob("*.dist-info/entry_points.txt")
    scripts = file.read_text().partition("[console_scripts]\n")[2].partition("\n\n")[0]
    assert scripts.strip() == "meds-plugin = meds_plugin.__main__:main"
    for name in ("review", "predict", "export", "table", "plot"):
        done = start(installed, tmp_path, "-m", "meds_plugin", name, "nonsense=1")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "nonsense" in done.stderr
    assert "usage: meds-plugin" in start(installed, tmp_path, "-m", "meds_plugin").stdout
    done = start(installed, tmp_path, "-m", "meds_plugin", "train")
    assert (done.returncode, "'train'" in done.stderr) == (2, True)


def test_finds_its_configurations_from_another_folder(installed: Path, tmp_path: Path) -> None:
    done = start(
        installed, tmp_path, "-m", "meds_plugin", "run", "--cfg", "job", "encoder=dinov2_reg_base"
    )
    assert done.returncode == 0, done.stderr
    assert "vit_base_patch14_reg4_dinov2" in done.stdout


def test_runs_a_sweep_from_another_folder(installed: Path, tmp_path: Path) -> None:
    options = ("-m", "method=memory", "noise=0.1", *TINY, "hydra.sweep.dir=sweep")
    done = start(installed, tmp_path, "-m", "meds_plugin.run", *options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep" / "job" / "metrics.json").is_file()
