"""anomalib's models as detectors under the plugin."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from backbones.anomalib import AnomalibDetector
from meds_plugin.run import main
from meds_plugin.utils.errors import UserError
from tests.backbones.anomalib.small import every_model, images, make, pre_processor
from tests.test_run import TINY, rows
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Refuse


@every_model
def test_the_frozen_part_neither_trains_nor_leaves_evaluation_mode(library: Any, name: str) -> None:
    detector = make(name).train()
    frozen = detector.recipe.frozen_parts(detector.model)
    assert frozen
    before = [value.clone() for part in frozen for value in part.state_dict().values()]
    trained = {id(p) for group in detector.parameter_groups() for p in group["params"]}
    for part in frozen:
        assert not any(module.training for module in part.modules())
        assert not any(p.requires_grad or id(p) in trained for p in part.parameters())
    detector.loss(images(name), step=0, total_steps=1).backward()
    detector(images(name))
    after = [value for part in frozen for value in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert detector.model.training


@every_model
def test_a_wrapped_model_goes_through_all_stages(library: Any, name: str) -> None:
    detector = make(name)
    before = [p.clone() for p in detector.parameters() if p.requires_grad]
    model = wrap(detector, distill_steps=3, finetune_steps=3)
    loader = DataLoader(TensorDataset(images(name, 8)), batch_size=4)
    quiet_trainer(model.total_steps).fit(model, loader)
    scores = model.training_scores()
    assert scores.score.shape == (8,)
    assert bool(torch.isfinite(scores.score).all())
    assert scores.memory is not None
    assert model.global_step == 6
    after = [p for p in detector.parameters() if p.requires_grad]
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_made_with_anomalib_is_trained_in_place(library: Any) -> None:
    module = library.Stfpm()
    assert AnomalibDetector(module).model is module.model
    with pytest.raises(UserError, match="for a model given by name"):
        AnomalibDetector(module, image_size=64)


def test_another_normalisation_is_refused(library: Any) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    steps = transforms.Compose([transforms.Normalize([0.5] * 3, [0.5] * 3)])
    with pytest.raises(UserError, match=r"normalises images by \[\[0\.5"):
        AnomalibDetector(library.Stfpm(pre_processor=pre_processor(steps)))


def test_modules_of_others_are_refused() -> None:
    with pytest.raises(UserError, match=r"takes a model of anomalib\.models .* got Linear"):
        AnomalibDetector(nn.Linear(1, 1))


def test_reduced_precision_is_refused(library: Any) -> None:
    with pytest.raises(UserError, match=r"weights are torch\.bfloat16, .*bf16-mixed"):
        make("dinomaly", precision="float16")


@pytest.mark.usefixtures("absent")
def test_the_command_line_refuses_in_one_line(refuse: Refuse) -> None:
    for model, remedy in (
        ("stfpm", "pip install 'meds-plugin[anomalib]'"),
        ("patchcore", "cannot be a detector"),
    ):
        assert remedy in refuse("backbone=anomalib", f"backbone.detector.model={model}")


def test_the_command_line_runs_a_model(
    library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = [
        *TINY,
        "data.image_size=64",
        "noise=0.4",
        "backbone=anomalib",
        "backbone.detector.model=stfpm",
        "+backbone.detector.layers=[layer1,layer2]",
        f"hydra.run.dir={tmp_path}",
    ]
    for name in ("MEDS_STARTED", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")  # put back afterwards
    monkeypatch.setattr(sys, "argv", ["meds_plugin.run", *overrides])
    main()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocol"]["backbone"] == "anomalib"
    assert len(rows(tmp_path / "ranking.csv")) == 22
