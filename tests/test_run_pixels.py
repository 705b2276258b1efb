"""Runs on files whose pixels are stored in other ways: masks, and images of 10 or 12 bits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import meds_plugin
from meds_plugin import predict
from meds_plugin.prediction.export import describe
from meds_plugin.prediction.predictor import AlarmSettings
from meds_plugin.review.training_images import find_training_images
from tests.test_run import read_config, rows
from tests.test_run_data import finished
from tests.trained import called

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _photograph(seed: int, *, scratched: bool) -> NDArray[np.int64]:
    """Return values of 12 bits."""
    values = np.random.default_rng(seed).integers(1000, 1600, (32, 32))
    values[12:18, 4:28] += 2400 * scratched
    return values


def _tree(root: Path, *, deep: bool) -> Path:
    """Write a product; the masks of the first two scratches tell them by transparency only."""
    shift, kind = (0, np.uint16) if deep else (4, np.uint8)
    for name, count in {"train/good": 6, "test/good": 3, "test/scratch": 3}.items():
        folder = root / "nut" / name
        folder.mkdir(parents=True)
        for n in range(count):
            values = _photograph(100 * len(name) + n, scratched="scratch" in name)
            Image.fromarray((values >> shift).astype(kind)).save(folder / f"{n}.png")
    truth = root / "nut/ground_truth/scratch"
    truth.mkdir(parents=True)
    for n in range(3):
        mask = np.zeros((32, 32, 4), np.uint8)
        mask[..., 0] = 255
        mask[12:18, 4:28, 3] = 255
        if n == 2 or not deep:
            mask = mask[..., 3]
        Image.fromarray(mask).save(truth / f"{n}_mask.png")
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Runs on the same images with 12 bits and reduced to 8, and what the first printed."""
    folder = tmp_path_factory.mktemp("runs")
    out = ""
    for name in ("shallow", "deep"):
        root = _tree(folder / f"{name} images", deep=name == "deep")
        _, out = finished(folder / name, "data=mvtec", f"data.root='{root}'", "noise=0")
    return folder, out


def test_a_run_on_12_bits_is_the_run_on_8(runs: tuple[Path, str]) -> None:
    folder, out = runs
    shallow, deep = (
        json.loads((folder / name / "metrics.json").read_text()) for name in ("shallow", "deep")
    )
    assert deep["mean"] == shallow["mean"]  # of pixels, too, whatever the masks are stored as
    assert rows(folder / "deep/ranking.csv") == rows(folder / "shallow/ranking.csv")
    assert "note: images use under an eighth of their 16 bits, first nut/train/good/0.png" in out
    for name, wanted in {"deep": [0, 4095], "shallow": "full"}.items():
        assert read_config(folder / name).data.range == wanted
    assert deep["protocol"]["range"] == [0, 4095]
    assert shallow["protocol"]["range"] == "full"


def test_new_images_are_read_with_the_runs_range(
    runs: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = runs
    for name in ("shallow", "deep"):
        predictor = meds_plugin.load(folder / name)
        new = folder / f"{name} images/nut/test/scratch"
        asked = (f"ckpt={folder / name}", f"images={new}", f"output={tmp_path / name}")
        assert called(predict.main, capsys, *asked, "progress=false")[0] == 0
        with Image.open(new / "0.png") as image:
            both: Any = predictor.predict([new / "0.png", image.copy()])
        written = rows(tmp_path / name / "scores.csv")[0]["score"]
        assert both.scores.tolist() == pytest.approx([float(written)] * 2)
        about = describe(predictor, "onnx", alarm=AlarmSettings(), category=None, opset=18)
        assert about["preprocessing"]["range"] == ([0, 4095] if name == "deep" else "full")
    assert rows(tmp_path / "deep/scores.csv") == rows(tmp_path / "shallow/scores.csv")


def test_the_page_shows_the_images_as_the_run_read_them(runs: tuple[Path, str]) -> None:
    folder, _ = runs
    shallow, deep = (
        find_training_images(folder / name, ["nut/train/good/1.png"]).rgb_image(0)
        for name in ("shallow", "deep")
    )
    np.testing.assert_array_equal(np.asarray(deep), np.asarray(shallow))
