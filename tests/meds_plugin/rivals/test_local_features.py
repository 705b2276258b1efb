from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.encoders.build import build_encoder
from meds_plugin.rivals.local_features import LocalFeatures, combined, neighbourhoods

if TYPE_CHECKING:
    from collections.abc import Callable

    from meds_plugin.encoders.base import FrozenEncoder
    from tests.conftest import Arrays


def pyramid() -> FrozenEncoder:
    return build_encoder(
        model="resnet18",
        image_size=64,
        layers=[2, 3],
        weights="random",
        pyramid={"stride": 8, "balance": False},
    )


@pytest.mark.parametrize("case", "abcd")
def test_features_are_the_authors(golden: Callable[[str], Arrays], case: str) -> None:
    arrays = golden("baselines/embed")
    width, target, patch = map(int, arrays[f"{case}_cfg"])
    names = sorted(name for name in arrays if name.startswith(f"{case}_feat"))
    maps = [torch.from_numpy(arrays[name]) for name in names]
    found = combined([neighbourhoods(each, patch=patch, width=width) for each in maps], target)
    assert tuple(found.shape[2:]) == tuple(arrays[f"{case}_grid"])
    rows = found.flatten(2).mT.reshape(-1, target)
    expected = torch.from_numpy(arrays[f"{case}_embed"])
    torch.testing.assert_close(rows, expected, rtol=0.0, atol=1e-5)


def test_an_encoders_layers_see_their_neighbours_at_their_own_resolution() -> None:
    encoder = pyramid()
    images = torch.randn(2, 3, 64, 64)
    found = LocalFeatures(encoder, patch=3, width=40)(images)
    assert found.shape == (2, 40, 8, 8)
    taps = encoder.model.forward_intermediates(images, indices=[2, 3], intermediates_only=True)
    expected = combined([neighbourhoods(tap, patch=3, width=40) for tap in taps], 40)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_gives_its_blocks() -> None:
    encoder = build_encoder(
        model="vit_base_patch14_reg4_dinov2",
        image_size=56,
        layers=[0, 2],
        weights="random",
        model_args={"embed_dim": 24, "depth": 3, "num_heads": 2},
    )
    images = torch.randn(2, 3, 56, 56)
    found = LocalFeatures(encoder, patch=1, width=24)(images)
    expected = combined(encoder.layer_maps(images), 24)
    assert torch.equal(found, expected)
    assert found.shape == (2, 24, 4, 4)


def test_batch_norms_can_take_each_images_own_statistics() -> None:
    encoder = pyramid()
    images = torch.randn(3, 3, 64, 64)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    module = LocalFeatures(encoder, patch=3, width=40, by_image=True)
    found = module(images)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(part.training for part in encoder.modules())

    # As the network does in training mode with one image.
    network = copy.deepcopy(encoder.model).train()
    for image, features in zip(images, found, strict=True):
        taps = network.forward_intermediates(image[None], indices=[2, 3], intermediates_only=True)
        expected = combined([neighbourhoods(tap, patch=3, width=40) for tap in taps], 40)
        torch.testing.assert_close(features[None], expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, LocalFeatures(encoder, patch=3, width=40)(images), atol=0.1)
