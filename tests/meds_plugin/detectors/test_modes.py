from __future__ import annotations

import torch
from torch import nn

from meds_plugin.detectors.modes import evaluating, freeze_modes, frozen_prefixes


def model() -> nn.Module:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    net.head = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    return net


def test_finds_the_topmost_parts_that_never_train() -> None:
    net = model()
    trainable = list(net.get_submodule("head.1").parameters())
    assert frozen_prefixes(net, trainable) == ("backbone.", "head.0.")
    assert frozen_prefixes(net, list(net.parameters())) == ()


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    net = model().train()
    freeze_modes(net, ["backbone."])
    assert not any(part.training for part in net.get_submodule("backbone").modules())
    assert all(part.training for part in net.get_submodule("head").modules())


def test_modes_are_put_back_as_they_were() -> None:
    net = model().train()
    freeze_modes(net, ["backbone."])
    before = {part: part.training for part in net.modules()}
    with evaluating(net):
        assert not any(part.training for part in net.modules())
        mean = net.get_buffer("backbone.1.running_mean").clone()
        net.get_submodule("backbone")(torch.randn(2, 1, 3, 3))
        assert torch.equal(net.get_buffer("backbone.1.running_mean"), mean)
    assert {part: part.training for part in net.modules()} == before
