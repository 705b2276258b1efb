"""Building anomalib's models."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import timm
import torch

from backbones.anomalib.library import build_model
from meds_plugin.utils.errors import UserError
from tests.backbones.anomalib.small import make


def test_weights_are_keyed_by_the_seed(library: Any) -> None:
    first, again, other = (make("stfpm", seed=seed) for seed in (1, 1, 2))
    for ours, same, different in zip(
        first.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(ours, same)
        assert ours.ndim < 2 or not torch.equal(ours, different)


def test_building_says_nothing(
    library: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    make("fastflow")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_wrong_arguments_are_refused(library: Any) -> None:
    with pytest.raises(UserError, match=r"takes no backbone\.detector\.depth; it takes backbone"):
        make("stfpm", depth=3)
    with pytest.raises(UserError, match=r"takes no backbone\.detector\.fuse_layer_encoder"):
        make("dinomaly", fuse_layer_encoder=[[0, 1, 2], [3, 4, 5, 6, 7]])
    with pytest.raises(UserError, match="cannot be built with these arguments: ValueError"):
        make("fastflow", backbone="resnet5")


def test_without_weights_the_message_says_where_to_get_them(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **arguments: Any) -> None:
        msg = "no network"
        raise OSError(msg)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no pretrained weights \(OSError: no network\).*HF_HOME"):
        make("stfpm")


@pytest.mark.usefixtures("absent")
def test_without_anomalib_the_message_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"pip install 'meds-plugin\[anomalib\]'"):
        build_model("Stfpm")
