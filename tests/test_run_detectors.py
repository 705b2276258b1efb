"""The command line with a detector that another package offers by an entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.config.location import conf_dir
from tests.conftest import PROJECT
from tests.processes import run
from tests.test_run import METRICS, TINY, read_config, rows

if TYPE_CHECKING:
    from tests.conftest import Refuse

CODE = """
import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.squeeze = nn.Conv2d(3, width, 4, stride=4)
        self.expand = nn.ConvTranspose2d(width, 3, 4, stride=4)

    def forward(self, images):
        rebuilt = self.expand(self.squeeze(images).relu())
        return nn.functional.avg_pool2d((rebuilt - images).square().mean(1), 4)


def with_encoder(encoder):
    toy = Toy()
    toy.encoder = encoder
    toy.features = encoder.features
    return toy


class Flat(Toy):
    def forward(self, images):
        return super().forward(images).mean((1, 2))


class Peak(Toy):
    def image_score(self, maps):
        return maps.amax((1, 2))


def broken():
    raise RuntimeError("no such file: weights.pt")


def nothing():
    return None
"""
POINTS = """
[meds_plugin.detectors]
dinomaly = toy_detectors:nothing
toy = toy_detectors:Toy
toy_encoder = toy_detectors:with_encoder
toy_flat = toy_detectors:Flat
toy_peak = toy_detectors:Peak
toy_broken = toy_detectors:broken
toy_nothing = toy_detectors:nothing
toy_gone = toy_detectors:gone
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds an installed package with entry points."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_detectors.py").write_text(CODE)
    info = folder / "toy_detectors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-detectors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package known to this process."""
    monkeypatch.syspath_prepend(str(site))


def test_a_name_of_an_entry_point_is_a_backbone(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    status, _, err = run(
        "backbone=toy",
        "+backbone.detector.width=6",
        "noise=0.4",
        *TINY,
        f"hydra.run.dir={folder}",
        site=site,
    )
    assert status == 0, err
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"]["backbone"] == "toy"
    assert metrics["protocol"]["encoder"] is None  # it takes none
    assert set(metrics["mean"]) == METRICS
    assert all(0 <= value <= 1 for value in metrics["mean"].values())
    assert len(rows(folder / "ranking.csv")) == 22
    config = read_config(folder)
    assert (config.backbone.detector.name, config.backbone.detector.width) == ("toy", 6)


def test_a_sweep_takes_names_of_both_kinds(site: Path, tmp_path: Path) -> None:
    status, _, err = run(
        "-m",
        "backbone=dinomaly,toy_encoder,toy_peak",
        *TINY,
        "method=distilled",
        "steps.distill=2",
        f"hydra.sweep.dir={tmp_path}",
        site=site,
    )
    assert status == 0, err
    found = [
        json.loads((tmp_path / f"backbone-{name}" / "metrics.json").read_text())["protocol"]
        for name in ("dinomaly", "toy_encoder", "toy_peak")
    ]
    assert [protocol["backbone"] for protocol in found] == ["dinomaly", "toy_encoder", "toy_peak"]
    own = "tf_efficientnet_lite0"
    assert [protocol["encoder"] for protocol in found] == [own, own, None]
    # An image score of the detector's own is not a mean over the largest values.
    tops = [protocol["evaluation"]["image_top"] for protocol in found]
    assert tops == [0.01, 0.01, None]
    # The name that is a configuration, too, is the configuration.
    built_in = read_config(tmp_path / "backbone-dinomaly").backbone.detector
    assert built_in._target_ == "backbones.dinomaly.Dinomaly"


def test_a_configuration_of_the_users_may_build_on_the_entry_point(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "toy.yaml").write_text(
        "defaults: [entry_point, _self_]\nname: toy\ndetector: {width: 5}\noptimizer: {lr: 3e-3}\n"
    )
    status, _, err = run(
        "--config-dir",
        str(tmp_path),
        "backbone=toy",
        *TINY,
        "method=memory",
        f"hydra.run.dir={tmp_path / 'run'}",
        site=site,
    )
    assert status == 0, err
    backbone = read_config(tmp_path / "run").backbone
    assert (backbone.detector.width, backbone.optimizer.lr) == (5, 3e-3)
    assert backbone.optimizer.warmup == 100


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["backbone=tooy"], "backbone=tooy does not exist: choose from anomalib, dinomaly, hvq, "),
        (["backbone=tooy"], "toy, toy_broken, toy_encoder"),
        (
            ["backbone=toy", "+backbone.detector.depth=3"],
            "is no backbone.detector.depth",
        ),
        (["backbone=toy_gone"], "cannot be loaded: AttributeError"),
        (["backbone=toy_broken"], "failed when it was built: RuntimeError: no such file"),
        (["backbone=toy_nothing"], "must return a torch.nn.Module, got NoneType"),
        (
            ["backbone=toy_encoder", "encoder.weights=/no/such/file.pth"],
            "meds_plugin: encoder.weights=/no/such/file.pth: there is no such file",
        ),
        (
            ["backbone=hvq", "backbone.detector.codes=many"],
            "backbone.detector.codes must be a whole number of at least 1, got 'many'",
        ),
        (
            ["backbone=dinomaly", "backbone.detector.dropout=much"],
            "backbone.detector (backbones.dinomaly.Dinomaly) cannot be built: TypeError",
        ),
        (["backbone=toy_flat"], "Flat.forward must return anomaly maps of shape [B, h, w]"),
    ],
)
def test_what_is_wrong_with_it_is_said_in_a_line(
    refuse: Refuse, overrides: list[str], line: str
) -> None:
    assert line in refuse(*TINY, *overrides)


def test_the_packages_own_entry_points_are_those_of_its_configurations() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["meds_plugin.detectors"]
    assert set(points) >= {"dinomaly", "inp_former", "hvq"}
    for path in (Path(conf_dir()) / "backbone").glob("*.yaml"):
        if path.stem in points:
            assert f"_target_: {points[path.stem].replace(':', '.')}\n" in path.read_text()
