"""Maps, losses and gradients of the detectors on a GPU are those of a CPU."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.hvq import HVQ
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from tests.backbones.hvq.small import SMALL
from tests.backbones.small import on_stages
from tests.gpu.detectors import DETECTORS, SIZE, images_of

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
HALF = 0.15  # of a map's spread, on average: half precision against float32


class Found(NamedTuple):
    """What a detector computes, on the CPU."""

    map: Tensor
    features: Tensor
    loss: Tensor
    gradient: Tensor


def computed(
    model: nn.Module, device: torch.device, *, half: torch.dtype | None = None, classes: int = 1
) -> Found:
    model = copy.deepcopy(model).to(device)
    view = DetectorView(model, default_features)
    images = images_of(4).to(device)
    category = torch.arange(4, device=device) % classes
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
        encoded, features = view.encode_and_features(images)
        model.train()
        view.loss(encoded, step=5, total_steps=10, category=category)  # HVQ finds its first codes
        loss = view.loss(encoded, step=6, total_steps=10, category=category)
        torch.autograd.backward(loss)
        model.eval()
        with torch.no_grad():
            maps = view.anomaly_map(encoded, category=category)
    grads = [p.grad.flatten() for p in view.trainable_parameters() if p.grad is not None]
    found = (maps, features, loss.detach(), torch.cat(grads))
    return Found(*(each.float().cpu() for each in found))


def assert_alike(found: Found, expected: Found) -> None:
    assert expected.map.std() > 1e-4
    torch.testing.assert_close(found.map, expected.map, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=1e-4)
    assert F.cosine_similarity(found.gradient, expected.gradient, dim=0) > 0.999


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_computes_what_it_does_on_a_cpu(device: torch.device, name: str) -> None:
    model = DETECTORS[name]()
    assert_alike(computed(model, device), computed(model, CPU))


@pytest.mark.parametrize("options", [{"map": "l2", "ot": True}, {"revival": 0.1}])
def test_hvq_with_categories_does_so_as_well(
    device: torch.device, options: dict[str, object]
) -> None:
    model = on_stages(HVQ, image_size=SIZE, **SMALL, dropout=0.0, classes=2, **options)
    assert_alike(computed(model, device, classes=2), computed(model, CPU, classes=2))


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_float32_on_a_cpu(
    device: torch.device, name: str, half: torch.dtype
) -> None:
    model = DETECTORS[name]()
    found, expected = computed(model, device, half=half), computed(model, CPU)
    difference = (found.map - expected.map).abs().mean()
    assert difference < HALF * expected.map.std()
    assert torch.isfinite(found.gradient).all()
