from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from meds_plugin.detectors.view import DetectorView
from meds_plugin.training.unused_parameters import leaves_some_out
from tests.toys import SIZE, BareDetector, FullDetector


class Extra(FullDetector):
    """Its loss uses a layer that its map does not."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Conv2d(8, 8, 1)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        return super().loss(self.turn(encoded), step=step, total_steps=total_steps)


class Sorted(nn.Module):
    """Has a layer for each of two categories."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BareDetector() for _ in range(2))

    def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
        assert category is not None
        maps: Tensor = self.layers[int(category[0])](images)
        return maps


def unused(detector: nn.Module, *stages: str) -> bool:
    view = DetectorView(detector, lambda images: images)
    images = torch.randn(2, 3, SIZE, SIZE)
    return leaves_some_out(view, detector.parameters(), images, stages=stages, categories=2)


def test_finds_stages_that_use_only_some_layers() -> None:
    assert not unused(FullDetector(), "distill", "finetune")
    assert not unused(BareDetector(), "train")
    assert not unused(Extra(), "finetune")
    assert unused(Extra(), "distill", "finetune")


def test_finds_what_only_some_categories_use() -> None:
    class Alike(BareDetector):
        def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
            return super().forward(images)

    assert unused(Sorted(), "train")
    assert not unused(Alike(), "train")


@pytest.mark.parametrize("kind", [BareDetector, Extra])
def test_leaves_the_detector_as_it_was(kind: type[nn.Module]) -> None:
    detector = kind()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    unused(detector, "distill", "finetune")
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())
