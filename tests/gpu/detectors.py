"""Small detectors without dropout, by name, and images that differ in how defective they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backbones.dinomaly import Dinomaly
from backbones.hvq import HVQ
from backbones.inp_former import INPFormer
from meds_plugin.utils.rng import torch_seeded
from tests.backbones.hvq.small import SMALL
from tests.backbones.small import noisy_images, on_stages, small, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

__all__ = ["DETECTORS", "SIZE", "images_of"]

SIZE = 56


def _dinomaly() -> nn.Module:
    model: nn.Module = small(Dinomaly, image_size=SIZE, layers=(1, 2), dropout=0.0)
    return model


def _inp_former() -> nn.Module:
    model = small(INPFormer, image_size=SIZE)
    with torch_seeded(0, "widen"):
        widen(model)
    return model  # type: ignore[no-any-return]


def _hvq() -> nn.Module:
    model: nn.Module = on_stages(HVQ, image_size=SIZE, **SMALL, dropout=0.0)
    return model


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "dinomaly": _dinomaly,
    "inp_former": _inp_former,
    "hvq": _hvq,
}


def images_of(count: int) -> Tensor:
    """Return ``[count, 3, SIZE, SIZE]`` noisy copies of an image, each darker in a square."""
    images = noisy_images(count, size=SIZE)
    shades = torch.linspace(0, 3, count)[torch.randperm(count, generator=torch.Generator())]
    images[:, :, SIZE // 4 : SIZE // 2, SIZE // 4 : SIZE // 2] -= shades.view(-1, 1, 1, 1)
    return images
