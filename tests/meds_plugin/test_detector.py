from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from meds_plugin.detector import Detector, DetectorView, check_detector, check_maps, grid_of
from tests.toys import BareDetector, FullDetector


def no_encoder(images: Tensor) -> Tensor:
    pytest.fail("the default encoder was asked")


def test_any_callable_module_is_a_detector() -> None:
    assert isinstance(BareDetector(), Detector)


def test_a_bare_detector_gets_defaults() -> None:
    view = DetectorView(BareDetector().eval(), lambda images: images.flatten(1).unsqueeze(-1))
    images = torch.randn(2, 3, 16, 16)
    assert not view.encodes
    assert view.encode(images) is images
    maps = view.anomaly_map(images)
    assert maps.shape == (2, 4, 4)
    torch.testing.assert_close(view.loss(images, step=0, total_steps=1), maps.mean())
    assert view.features(images).shape == (2, 768, 1)
    assert len(view.trainable_parameters()) == 4


def test_a_full_detector_is_asked_for_everything() -> None:
    detector = FullDetector()
    view = DetectorView(detector, no_encoder)
    images = torch.randn(2, 3, 16, 16)
    encoded = view.encode(images)
    assert view.encodes
    assert not encoded.requires_grad
    assert view.features(images).shape == (2, 16, 8)
    view.loss(encoded, step=3, total_steps=9)
    assert detector.losses == [(3, 9)]
    assert len(view.trainable_parameters()) == 2


def test_submodules_and_lone_encoders_are_not_taken_for_methods() -> None:
    class Autoencoder(BareDetector):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 3, 1)
            self.loss = nn.MSELoss()

        def encode(self, images: Tensor) -> Tensor:
            return self.squeeze(images)  # type: ignore[no-any-return]

    view = DetectorView(Autoencoder(), lambda _: torch.zeros(1, 1, 1))
    check_detector(view)
    images = torch.randn(1, 3, 16, 16)
    assert not view.encodes
    assert view.features(images).shape == (1, 1, 1)
    assert view.loss(images, step=0, total_steps=1).ndim == 0


def test_refuses_a_loss_that_does_not_take_the_step() -> None:
    class Wrong(BareDetector):
        def loss(self, images: Tensor) -> Tensor:
            return images.mean()

    with pytest.raises(TypeError, match=r"Wrong.loss must take \(encoded, \*, step, total_steps\)"):
        check_detector(DetectorView(Wrong(), no_encoder))


def test_refuses_a_detector_without_anything_to_train() -> None:
    frozen = BareDetector().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="BareDetector has no trainable parameter"):
        check_detector(DetectorView(frozen, no_encoder))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4), (1, 4, 4)])
def test_refuses_maps_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Net must return anomaly maps .* for 2 images"):
        check_maps(torch.zeros(shape), batch=2, name="Net")


def test_refuses_maps_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        check_maps(torch.full((1, 2, 2), torch.inf), batch=1, name="Net")


@pytest.mark.parametrize(
    ("features", "image", "grid"),
    [
        ((1, 16, 8), (32, 32), (4, 4)),
        ((1, 24, 8), (56, 84), (4, 6)),
        ((1, 8, 3, 5), (9, 9), (3, 5)),
    ],
)
def test_finds_the_patch_grid(
    features: tuple[int, ...], image: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert grid_of(torch.zeros(features), torch.zeros(1, 3, *image)) == grid


def test_refuses_patches_that_are_no_grid() -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        grid_of(torch.zeros(1, 17, 8), torch.zeros(1, 3, 32, 32))
