"""Memory features for detectors that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.nn import functional as F

from meds_plugin.config.location import conf_dir
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders import default as default_encoder
from meds_plugin.encoders.default import default_features
from meds_plugin.encoders.normalization import IMAGENET
from tests.toys import BareDetector

if TYPE_CHECKING:
    from meds_plugin.encoders.base import FrozenEncoder


def test_it_is_the_encoder_of_the_default_configuration() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        settings = compose("encoder/efficientnet_lite0")
    encoder: FrozenEncoder = instantiate(
        settings.encoder, image_size=settings.resolution.image_size
    )
    assert encoder.image_size == (default_encoder.IMAGE_SIZE,) * 2
    assert encoder.normalization == default_features.normalization
    images = torch.randn(2, 3, 224, 224)
    features = default_features(images)
    assert features.shape == (2, 196, sum(encoder.channels))
    torch.testing.assert_close(features, encoder.features(images))


def test_images_of_any_size_are_resized_and_give_no_gradient() -> None:
    images = torch.randn(1, 3, 60, 90, requires_grad=True)
    features = default_features(images)
    assert not features.requires_grad
    resized = F.interpolate(images, (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(features, default_features(resized))
    torch.testing.assert_close(features, default_features(images.double()))


def test_a_detector_prepared_by_imagenets_values_gets_the_same_features() -> None:
    raw = torch.rand(1, 3, 48, 48)
    view = DetectorView(BareDetector(), default_features)
    found = view.features(IMAGENET.apply(raw))
    expected = default_features(default_features.normalization.apply(raw))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(default_features(IMAGENET.apply(raw)), expected, atol=0.1)
