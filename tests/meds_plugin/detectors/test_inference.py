from __future__ import annotations

import torch
from torch import nn

from meds_plugin.detectors.frozen_part import freeze_modes
from meds_plugin.detectors.inference import evaluating


def test_modes_are_put_back_as_they_were() -> None:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    net.head = nn.Linear(1, 1)
    freeze_modes(net, ["backbone."])
    before = {part: part.training for part in net.modules()}
    with evaluating(net):
        assert not any(part.training for part in net.modules())
        mean = net.get_buffer("backbone.1.running_mean").clone()
        net.get_submodule("backbone")(torch.randn(2, 1, 3, 3))
        assert torch.equal(net.get_buffer("backbone.1.running_mean"), mean)
    assert {part: part.training for part in net.modules()} == before
