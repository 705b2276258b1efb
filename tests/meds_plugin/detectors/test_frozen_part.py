from __future__ import annotations

import pytest
import torch
from torch import nn

from meds_plugin.detectors.frozen_part import (
    FrozenPart,
    check_saved,
    fingerprint,
    freeze_modes,
    frozen_prefixes,
    without,
)
from meds_plugin.utils.errors import UserError


def model() -> nn.Module:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    net.head = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    return net


def test_the_frozen_part_is_left_out_and_known_by_its_fingerprint() -> None:
    net = model()
    frozen = FrozenPart(net, list(net.get_submodule("head").parameters()))
    state = {f"detector.{key}": value for key, value in net.state_dict().items()}
    held = frozen.trained({**state, "memory_encoder.weight": torch.zeros(1)})
    assert {key.split(".")[1] for key in held} == {"head"}
    before = frozen.fingerprint()
    net.get_buffer("backbone.1.running_mean").add_(1)
    assert frozen.fingerprint() == before  # hashing is for once
    frozen.forget()
    assert frozen.fingerprint() != before


def test_leaves_out_by_prefix() -> None:
    state = {"a.x": torch.zeros(1), "ab.x": torch.zeros(1)}
    assert set(without(state, ["a."])) == {"ab.x"}
    assert set(without(state, [])) == {"a.x", "ab.x"}


def test_fingerprint_sees_only_frozen_values() -> None:
    net = model()
    before = fingerprint(net, ["backbone."])
    with torch.no_grad():
        net.get_parameter("head.0.bias").add_(1)
    assert fingerprint(net, ["backbone."]) == before
    net.get_buffer("backbone.1.running_mean").add_(1)
    assert fingerprint(net, ["backbone."]) != before


def test_refuses_checkpoints_of_another_model() -> None:
    one = {"w": torch.zeros(1)}
    check_saved(one, expected=one, saved_fingerprint="f", fingerprint="f")
    with pytest.raises(UserError, match="lacks 1 weights"):
        check_saved({}, expected=one, saved_fingerprint="f", fingerprint="f")
    with pytest.raises(UserError, match="has unknown 1 weights"):
        check_saved(one, expected={}, saved_fingerprint="f", fingerprint="f")
    with pytest.raises(UserError, match=r"encoder\.weights=FILE"):
        check_saved(one, expected=one, saved_fingerprint="f", fingerprint="g")


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
