"""A predictor on a GPU gives the scores and maps that it gives on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.data import Preprocess
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.evaluation.scoring import Scorer
from meds_plugin.prediction.predictor import Prediction, Predictor
from tests.gpu.detectors import DETECTORS, SIZE, images_of

if TYPE_CHECKING:
    from torch import nn

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")


def predicted(detector: nn.Module, device: torch.device, precision: str = "32-true") -> Prediction:
    scorer = Scorer(
        copy.deepcopy(detector), (SIZE, SIZE), EvaluationProtocol(resize=64), precision=precision
    )
    predictor = Predictor(
        scorer,
        Preprocess(SIZE),
        categories=["nut"],
        thresholds=None,
        device=device,
        source=Path("model.ckpt"),
        backbone="small",
    )
    return predictor.predict(images_of(6), threshold=0.5, pixel_threshold=0.5, batch_size=4)


@pytest.mark.parametrize("name", DETECTORS)
def test_predictions_are_those_of_a_cpu(device: torch.device, name: str) -> None:
    detector = DETECTORS[name]()
    found, expected = predicted(detector, device), predicted(detector, CPU)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.maps, expected.maps, atol=1e-5, rtol=1e-4)


def test_predictions_in_half_precision_are_close(device: torch.device) -> None:
    detector = DETECTORS["dinomaly"]()
    found, expected = predicted(detector, device, "bf16-mixed"), predicted(detector, CPU)
    torch.testing.assert_close(found.scores, expected.scores, atol=0.01, rtol=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_on_the_device_is_loaded_on_either(
    device: torch.device, tmp_path: Path, precision: str
) -> None:
    pytest.importorskip("hydra")
    from meds_plugin.prediction.load import load
    from tests.trained import train

    accelerator = "cpu" if device.type == "cpu" else "gpu"
    run = train(
        tmp_path / "run", f"trainer.accelerator={accelerator}", f"trainer.precision={precision}"
    )
    names = run.write_test_images(tmp_path / "images")
    files = [str(tmp_path / "images" / name) for name in names]
    found, expected = (
        load(run.checkpoint, device=where).predict(files, category="weave", false_alarm_rate=0.1)
        for where in (device, CPU)
    )
    loose = precision != "32-true"
    torch.testing.assert_close(
        found.scores, expected.scores, atol=1e-5, rtol=0.02 if loose else 1e-4
    )
