"""Small models of anomalib, and images for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.anomalib import AnomalibDetector
from backbones.anomalib.recipes import RECIPES

__all__ = [
    "SMALL",
    "TRANSFORMERS",
    "every_model",
    "images",
    "make",
    "module_of",
    "pre_processor",
    "side",
]

VIT = {"encoder_name": "vit_small_patch14_reg4_dinov2"}
SMALL: dict[str, dict[str, Any]] = {
    "dinomaly": VIT,
    "fastflow": {"flow_steps": 2},
    "inp_former": VIT,
    "reverse_distillation": {"backbone": "resnet18"},
    "stfpm": {},
    "uflow": {"backbone": "resnet18", "flow_steps": 1},
}
TRANSFORMERS = {"dinomaly", "inp_former"}
every_model = pytest.mark.parametrize("name", sorted(RECIPES))


def side(name: str) -> int:
    """Return the side of images that a model can take."""
    return 56 if name in TRANSFORMERS else 64


def make(name: str, **arguments: Any) -> AnomalibDetector:
    """Return a detector on a small model."""
    return AnomalibDetector(name, image_size=side(name), **{**SMALL[name], **arguments})


def images(name: str, count: int = 2) -> Tensor:
    """Return random images that a model can take."""
    return torch.randn(count, 3, side(name), side(name))


def module_of(library: Any, name: str, **arguments: Any) -> Any:
    """Return anomalib's own module, as a user of anomalib makes it."""
    detector = make(name, **arguments)
    resize = import_module("torchvision.transforms.v2").Resize((side(name), side(name)))
    module = getattr(library, RECIPES[name].class_name)(
        **{**SMALL[name], **arguments}, pre_processor=pre_processor(resize)
    )
    module.model.load_state_dict(detector.model.state_dict())
    return module


def pre_processor(transform: Any) -> Any:
    """Return anomalib's wrapper of a transform."""
    return import_module("anomalib.pre_processing").PreProcessor(transform=transform)
