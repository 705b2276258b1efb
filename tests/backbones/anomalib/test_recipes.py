"""Maps, losses and features of anomalib's models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backbones.anomalib import AnomalibDetector
from meds_plugin.detectors.outputs import check_finite, check_maps
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.metrics import image_score
from meds_plugin.utils.errors import UserError
from tests.backbones.anomalib.small import (
    SMALL,
    TRANSFORMERS,
    every_model,
    images,
    make,
    module_of,
    side,
)


@every_model
def test_maps_are_differentiable_and_the_same_size_in_both_modes(library: Any, name: str) -> None:
    detector, batch = make(name), images(name)
    check_signatures(DetectorView(detector, encoder=nn.Identity()))
    training = detector.train()(batch)
    evaluating = detector.eval()(batch)
    for maps in (training, evaluating):
        check_maps(maps, batch=2, name=name)
        check_finite(maps, name=name)
        assert maps.requires_grad
        assert float(maps.detach().min()) >= 0
    assert training.shape == evaluating.shape
    assert max(evaluating.shape[1:]) <= side(name) // 4  # the features' grid, not the image's
    evaluating.sum().backward()
    reached = [p.grad is not None for p in detector.parameters() if p.requires_grad]
    assert sum(reached) >= len(reached) - 3  # Reverse Distillation makes a layer it never uses


@every_model
def test_the_loss_is_the_models_own(
    library: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(library, name).train()
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    detector, batch = AnomalibDetector(module).train(), images(name)
    torch.manual_seed(1)
    expected = module.training_step(SimpleNamespace(image=batch), 0)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(detector.loss(batch, step=0, total_steps=9), expected)


@pytest.mark.parametrize("name", ["dinomaly", "inp_former", "stfpm"])
def test_maps_are_anomalibs_before_resize_and_blur(library: Any, name: str) -> None:
    one_layer = {"layers": ("layer1",)} if name == "stfpm" else {}
    module = module_of(library, name, **one_layer).eval()
    batch = images(name)
    ours = AnomalibDetector(module).eval()(batch).unsqueeze(1)
    ours = F.interpolate(
        ours, size=batch.shape[-2:], mode="bilinear", align_corners=name in TRANSFORMERS
    )
    if name == "inp_former":
        ours = module.model.gaussian_blur(ours)
    torch.testing.assert_close(ours, module.model(batch).anomaly_map)


@pytest.mark.parametrize("name", ["fastflow", "uflow", "stfpm"])
def test_maps_of_many_layers_agree_with_anomalibs(library: Any, name: str) -> None:
    module = module_of(library, name).eval()
    batch = images(name, 8)
    batch[:4, :, 16:40, 16:40] *= 4
    with torch.no_grad():
        ours = AnomalibDetector(module).eval()(batch)
        theirs = F.adaptive_avg_pool2d(module.model(batch).anomaly_map, ours.shape[-2:])[:, 0]
    both = torch.stack([ours.flatten(), theirs.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


def test_hard_mining_follows_the_step(library: Any) -> None:
    detector = make("dinomaly")
    detector.loss(images("dinomaly"), step=500, total_steps=9)
    assert detector.model.loss_fn.p == pytest.approx(0.45)


@pytest.mark.parametrize("mode", ["add", "multiply"])
def test_reverse_distillation_is_anomalibs_before_the_blur(
    library: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = "anomalib.models.image.reverse_distillation.anomaly_map"
    monkeypatch.setattr(f"{generator}.GaussianBlur2d", lambda **arguments: nn.Identity())
    detector = make("reverse_distillation", anomaly_map_mode=mode).eval()
    batch = images("reverse_distillation")
    detector.model.anomaly_map_generator.image_size = (16, 16)
    expected = detector.model(batch).anomaly_map
    torch.testing.assert_close(detector(batch).unsqueeze(1), expected)


@every_model
def test_memory_features_come_from_the_frozen_part(library: Any, name: str) -> None:
    detector, batch = make(name).train(), images(name)
    features = detector.features(batch)
    assert not features.requires_grad
    assert features.shape == ((2, 16, 384) if name in TRANSFORMERS else (2, 448, 8, 8))
    with torch.no_grad():
        for group in detector.parameter_groups():
            for parameter in group["params"]:
                parameter.add_(1.0)
    assert torch.equal(detector.eval().features(batch), features)


def test_concatenated_layers_have_equal_weight(library: Any) -> None:
    features = make("stfpm").features(images("stfpm"))
    for layer in features.split([64, 128, 256], dim=1):
        torch.testing.assert_close(layer.norm(dim=1), torch.ones(2, 8, 8))


def test_images_are_scored_by_the_models_rule(library: Any) -> None:
    maps = torch.rand(3, 20, 20)
    assert torch.equal(make("stfpm").image_score(maps), maps.amax((1, 2)))
    assert torch.equal(make("dinomaly").image_score(maps), image_score(maps, 0.01))


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("dinomaly", 64, "multiples of 14"),
        ("inp_former", (56, 70), "multiples of 14 and equal"),
        ("reverse_distillation", 48, "multiples of 32"),
        ("fastflow", 72, "multiples of 16"),
    ],
)
def test_image_sizes_that_do_not_fit_are_refused(
    library: Any, name: str, size: Any, wanted: str
) -> None:
    with pytest.raises(UserError, match=rf"data\.image_size .* must be {wanted}"):
        AnomalibDetector(name, image_size=size, **SMALL[name])


def test_images_of_another_size_than_built_for_are_refused(library: Any) -> None:
    with pytest.raises(UserError, match=r"32 x 32: .* must be 64 x 64, as it was built"):
        make("fastflow")(torch.randn(1, 3, 32, 32))
