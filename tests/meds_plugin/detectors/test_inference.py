from __future__ import annotations

import torch
from torch import nn

from meds_plugin.detectors.frozen_part import freeze_modes
from meds_plugin.detectors.inference import evaluating, few_at_a_time


def test_modes_are_put_back_as_they_were() -> None:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    net.head = nn.Linear(1, 1)
    freeze_modes(net, ["backbone."])
    before = {part: part.training for part in net.modules()}
    with evaluating(net):
        with evaluating(net):
            pass
        assert not any(part.training for part in net.modules())
        mean = net.get_buffer("backbone.1.running_mean").clone()
        net.get_submodule("backbone")(torch.randn(2, 1, 3, 3))
        assert torch.equal(net.get_buffer("backbone.1.running_mean"), mean)
    assert {part: part.training for part in net.modules()} == before


def test_large_images_are_run_one_by_one_and_small_ones_together() -> None:
    sizes: list[int] = []

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(images))
        return images.mean((1, 2, 3)), images[:, 0]

    for side, expected in ((300, [1, 1, 1]), (32, [3])):
        images = torch.rand(3, 3, side, side)
        sizes.clear()
        means, first = few_at_a_time(run, images)
        assert sizes == expected
        torch.testing.assert_close(means, images.mean((1, 2, 3)))
        assert torch.equal(first, images[:, 0])
    assert few_at_a_time(run, images[:0])[1].shape == (0, 32, 32)
