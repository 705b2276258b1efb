"""Exported detectors give the checkpoint's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import meds_plugin
from meds_plugin import export
from meds_plugin.prediction import export as exporting
from meds_plugin.prediction.export import export_bytes
from meds_plugin.utils.errors import UserError
from tests.processes import start
from tests.trained import Trained, called, train

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.prediction.export import Format

SHALLOW = ("encoder.layers=[1,2]", "encoder.pyramid.weights=null", "evaluation.resize=32")
RUNS = {
    "dinomaly": ("backbone=dinomaly", "data.image_size=48", "data.crop=32"),
    "inp_former": ("backbone=inp_former",),
    "hvq": (
        "backbone=hvq",
        "backbone.detector.depth=1",
        "backbone.detector.classes=2",
        "backbone.detector.routing=label",
    ),
}
LOAD = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load(sys.argv[2])), sys.argv[3])
"""


@pytest.fixture(scope="module", params=list(RUNS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of each of the package's own detectors."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return train(folder, "noise=0.2", *SHALLOW, *RUNS[request.param])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("one") / "run", *SHALLOW, *RUNS["dinomaly"])


def images(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_the_numbers_are_the_checkpoints_for_any_number_of_images(
    run: Trained, kind: Format, tmp_path: Path
) -> None:
    if kind == "onnx":
        onnx, runtime = (pytest.importorskip(name) for name in ("onnx", "onnxruntime"))
    predictor = meds_plugin.load(run.checkpoint, device="cpu")
    own = bool(getattr(predictor.scorer.detector, "needs_category", False))
    category = "weave" if own else None
    content = export_bytes(predictor, kind, category=category)
    file = tmp_path / "model.pt2"
    file.write_bytes(content)
    for count in (1, 5):
        batch = images(count)
        scores, maps = predictor.score_batch(batch, [category] * count)
        if kind == "onnx":
            session: Any = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
            assert [(i.name, i.shape) for i in session.get_inputs()] == [
                ("images", ["batch", 3, 32, 32])
            ]
            assert [o.name for o in session.get_outputs()] == ["anomaly_map", "score"]
            found = session.run(["anomaly_map", "score"], {"images": batch.numpy()})
        else:
            outputs = torch.export.load(file).module()(batch)
            assert set(outputs) == {"anomaly_map", "score"}
            found = [outputs["anomaly_map"].numpy(), outputs["score"].numpy()]
        np.testing.assert_allclose(found[0], maps.numpy(), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(found[1], scores.numpy(), atol=1e-5, rtol=1e-4)
    if kind == "onnx":
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


@pytest.mark.slow
def test_the_default_encoder_is_exported_whole_and_with_its_normalization(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    quick = ("data.image_size=64", "method=plain", "data.categories=[gear]")
    run = train(tmp_path / "run", *quick)
    file = tmp_path / "model.onnx"
    status, _, err = called(export.main, capsys, f"ckpt={run.checkpoint}", f"output={file}")
    assert (status, err) == (0, "")
    predictor = meds_plugin.load(run.checkpoint, device="cpu")
    session: Any = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for count in (1, 3, 8):
        batch = images(count, 64)
        scores, maps = predictor.score_batch(batch, [None] * count)
        found = session.run(["anomaly_map", "score"], {"images": batch.numpy()})
        np.testing.assert_allclose(found[0], maps.numpy(), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(found[1], scores.numpy(), atol=1e-5, rtol=1e-4)
    steps = json.loads(file.with_suffix(".json").read_text())["preprocessing"]
    assert (steps["mean"], steps["std"]) == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert steps["interpolation"].startswith("bicubic with antialiasing (Pillow)")


def test_the_command_line_writes_file_and_description(
    one: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in" / "line=3, left.pt2"
    ask = (f"ckpt={one.checkpoint}", f"output={file}", "false_alarm_rate=0.4")
    status, out, err = called(export.main, capsys, *ask)
    assert (status, err) == (0, "")
    assert str(file) in out
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["input"] == {"name": "images", "type": "float32", "shape": ["batch", 3, 32, 32]}
    assert about["outputs"]["anomaly_map"]["shape"] == ["batch", 32, 32]
    assert about["categories"] == ["gear", "weave"]
    assert about["opset"] is None
    assert about["false_alarm_rate"] == 0.4
    assert set(about["versions"]) == {"python", "meds_plugin", "torch"}
    predictor = meds_plugin.load(one.checkpoint)
    for name, limit in {
        **about["thresholds"]["categories"],
        None: about["thresholds"]["global"],
    }.items():
        assert predictor.thresholds is not None
        own = predictor.thresholds.of(name, rate=0.4)
        assert limit == {"image": own.image, "pixel": own.pixel}

    # A process without this package gets the same numbers.
    torch.save(images(3), tmp_path / "images")
    command = [sys.executable, "-I", "-c", LOAD, file, tmp_path / "images", tmp_path / "found"]
    subprocess.run([*map(str, command)], check=True, cwd=tmp_path, timeout=300)
    found = torch.load(tmp_path / "found")
    scores, maps = predictor.score_batch(images(3), [None] * 3)
    torch.testing.assert_close(found["score"], scores)
    torch.testing.assert_close(found["anomaly_map"], maps)

    status, _, err = called(export.main, capsys, *ask)
    assert status == 2
    assert "exists already: give another output, or overwrite=true" in err


def test_the_description_is_enough_to_prepare_an_image(one: Trained) -> None:
    predictor = meds_plugin.load(one.checkpoint)
    about = exporting.describe(
        predictor,
        "onnx",
        alarm=meds_plugin.prediction.predictor.AlarmSettings(),
        category=None,
        opset=18,
    )
    steps = about["preprocessing"]
    picture = Image.fromarray(np.asarray(one.test["gear"][0].image)).resize((70, 90))
    height, width = steps["resize"]
    kind = Image.Resampling[steps["interpolation"].split()[0].upper()]
    small = np.asarray(picture.resize((width, height), kind), np.float32)
    top, left = steps["crop"]["offset"]
    height, width = steps["crop"]["size"]
    small = small[top : top + height, left : left + width] / steps["divide_by"]
    wanted = ((small - steps["mean"]) / steps["std"]).transpose(2, 0, 1)
    np.testing.assert_allclose(predictor.preprocess(picture).numpy(), wanted, atol=1e-5)
    assert about["versions"]["torch"] == torch.__version__.split("+")[0]
    assert about["opset"] == 18


def test_numbers_that_differ_are_not_written(one: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = meds_plugin.load(one.checkpoint, device="cpu")
    original = exporting._torch

    def other(module: torch.nn.Module, example: Tensor) -> bytes:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05)
        content: bytes = original(module, example)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.05)
        return content

    monkeypatch.setattr(exporting, "_torch", other)
    with pytest.raises(UserError, match="the exported anomaly_map differs"):
        export_bytes(predictor, "torch")


def test_a_detector_that_cannot_be_exported_is_told_in_a_line(
    one: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = meds_plugin.load(one.checkpoint, device="cpu")

    def peeks(encoded: Tensor) -> Tensor:
        return encoded[:, 0] * float(encoded.max())

    monkeypatch.setitem(predictor.scorer.view._own, "anomaly_map", peeks)
    with pytest.raises(UserError, match="backbone=dinomaly cannot be exported to torch: "):
        export_bytes(predictor, "torch")


def test_a_package_that_is_missing_is_named(one: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match=r"onnxscript: pip install 'meds-plugin\[onnx\]'"):
        export_bytes(meds_plugin.load(one.checkpoint, device="cpu"), "onnx")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("output=model.pth",), "must end in .onnx or .pt2, or be a folder"),
        (("format=tflite",), "format=tflite: choose from onnx, torch"),
        (("format=torch", "output=a.onnx"), "a file that ends in .pt2: a.onnx"),
        (("ckpt=none.ckpt",), "there is no such file"),
        (("opset=0",), "opset must be a whole number"),
        (("opset=16",), "opset=16: torch writes this model with 18; give opset=18"),
        (("false_alarm_rate=0",), "false_alarm_rate must be"),
        (("images=a",), "'images=a' is not an option"),
    ],
)
def test_wrong_input_is_told_in_a_line(
    one: Trained, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], line: str
) -> None:
    ask = (f"ckpt={one.checkpoint}", "output=model.onnx", *options)
    status, _, err = called(export.main, capsys, *ask)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert line in err


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    process = start("ckpt=none.ckpt", "output=model.onnx", cwd=tmp_path, module="export")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err == "meds_plugin: ckpt=none.ckpt: there is no such file; give a run's model.ckpt\n"
