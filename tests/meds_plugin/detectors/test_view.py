from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meds_plugin.detectors.outputs import check_finite, check_maps, grid_of
from meds_plugin.detectors.protocol import Detector
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.utils.errors import DetectorError
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
    check_signatures(view)
    images = torch.randn(1, 3, 16, 16)
    assert not view.encodes
    assert view.features(images).shape == (1, 1, 1)
    assert view.loss(images, step=0, total_steps=1).ndim == 0


def test_the_frozen_part_runs_in_evaluation_mode_whatever_the_detectors_mode() -> None:
    class Dropped(FullDetector):
        def encode(self, images: Tensor) -> Tensor:
            assert not self.drop.training
            return self.drop(super().encode(images))  # type: ignore[no-any-return]

    detector = Dropped().train()
    images = torch.randn(2, 3, 16, 16)
    view = DetectorView(detector, no_encoder)
    assert torch.equal(view.encode(images), torch.tanh(detector.encoder(images)))
    assert detector.training
    assert detector.drop.training


def test_passes_categories_to_those_methods_that_take_them() -> None:
    seen: dict[str, list[int]] = {}

    class Sorted(FullDetector):
        def anomaly_map(self, encoded: Tensor, category: Tensor | None = None) -> Tensor:
            assert category is not None
            assert category.dtype == torch.int64
            seen["map"] = category.tolist()
            return super().anomaly_map(encoded)

        def loss(
            self,
            encoded: Tensor,
            *,
            step: int,
            total_steps: int,
            category: Tensor | None = None,
        ) -> Tensor:
            assert category is not None
            seen["loss"] = category.tolist()
            return self.anomaly_map(encoded, category).mean()

    view = DetectorView(Sorted(), no_encoder)
    check_signatures(view)
    encoded = view.encode(torch.randn(2, 3, 16, 16))
    view.anomaly_map(encoded, category=torch.tensor([3, 0]))
    assert seen == {"map": [3, 0]}
    view.loss(encoded, step=0, total_steps=1, category=torch.tensor([1, 2]))
    assert seen == {"map": [1, 2], "loss": [1, 2]}
    view.anomaly_map(encoded)  # nobody knows
    assert seen["map"] == [-1, -1]


def test_passes_categories_to_a_call_that_takes_them() -> None:
    class Sorted(BareDetector):
        def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
            assert category is not None
            return super().forward(images) + category.view(-1, 1, 1, 1)

    view = DetectorView(Sorted().eval(), no_encoder)
    images, category = torch.randn(2, 3, 16, 16), torch.tensor([4, 0])
    plain = view.anomaly_map(images, category=torch.zeros_like(category))
    torch.testing.assert_close(
        view.anomaly_map(images, category=category), plain + category.view(-1, 1, 1)
    )
    torch.testing.assert_close(
        view.loss(images, step=0, total_steps=1, category=category), plain.mean() + 2
    )


def test_an_image_score_of_its_own_goes_before_the_share_of_the_top() -> None:
    class Scored(BareDetector):
        def image_score(self, maps: Tensor) -> Tensor:
            return maps.amin((1, 2))

    maps = torch.rand(3, 4, 4)
    assert torch.equal(
        DetectorView(Scored(), no_encoder).image_score(maps, top=0.5), maps.amin((1, 2))
    )
    plain = DetectorView(BareDetector(), no_encoder)
    torch.testing.assert_close(plain.image_score(maps, top=0.0), maps.amax((1, 2)))
    Scored.image_score = lambda self, maps: maps.amin(1)  # type: ignore[method-assign]
    with pytest.raises(DetectorError, match=r"one score per image, shape \[B\]; for 3 maps"):
        DetectorView(Scored(), no_encoder).image_score(maps, top=0.5)


def test_a_group_may_name_its_parameters_in_any_way_that_optimisers_take() -> None:
    class Grouped(FullDetector):
        def parameter_groups(self) -> list[dict[str, Any]]:
            weight, bias = self.head.parameters()
            return [{"params": weight, "lr": 0.1}, {"params": iter([bias])}]

    view = DetectorView(Grouped(), no_encoder)
    check_signatures(view)
    assert [len(group["params"]) for group in view.parameter_groups()] == [1, 1]
    assert view.parameter_groups()[0]["lr"] == 0.1


def test_refuses_a_loss_that_does_not_take_the_step() -> None:
    class Wrong(BareDetector):
        def loss(self, images: Tensor) -> Tensor:
            return images.mean()

    with pytest.raises(TypeError, match=r"Wrong.loss must take \(encoded, \*, step, total_steps\)"):
        check_signatures(DetectorView(Wrong(), no_encoder))


def test_refuses_a_detector_without_anything_to_train() -> None:
    frozen = BareDetector().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="BareDetector has no trainable parameter"):
        check_signatures(DetectorView(frozen, no_encoder))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4), (1, 4, 4)])
def test_refuses_maps_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Net must return anomaly maps .* for 2 images"):
        check_maps(torch.zeros(shape), batch=2, name="Net")


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_refuses_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="Net returned values that are not finite"):
        check_finite(torch.tensor([0.0, value]), name="Net")


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


def test_one_pass_gives_both_only_where_both_are_the_detectors_own() -> None:
    class Joint(FullDetector):
        def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return self.encode(images), self.features(images)

    images = torch.randn(2, 3, 16, 16)
    own = DetectorView(Joint(), no_encoder)
    assert own.own("encode_and_features") is not None
    for one, other in zip(
        own.encode_and_features(images), (own.encode(images), own.features(images)), strict=True
    ):
        assert torch.equal(one, other)
    lacking = Joint()
    lacking.features = None  # type: ignore[assignment,method-assign]
    view = DetectorView(lacking, lambda images: images.flatten(2).mT)
    assert view.own("encode_and_features") is None
    assert view.encode_and_features(images)[1].shape == (2, 256, 3)
    plain = FullDetector()
    assert not DetectorView(plain, no_encoder).augments
    plain.augments = True  # type: ignore[assignment]
    assert DetectorView(plain, no_encoder).augments


# --- how images are prepared -----------------------------------------------------------------


class Memory:
    """Stands for the default encoder: notes what it gets."""

    normalization: Normalization | None = Normalization((0.5, 0.4, 0.3), (0.5, 0.2, 0.1), "bicubic")

    def __init__(self) -> None:
        self.seen = torch.empty(0)

    def __call__(self, images: Tensor) -> Tensor:
        self.seen = images
        return images.flatten(2).mT


def test_the_default_encoder_gets_images_normalised_in_its_own_way() -> None:
    raw, memory = torch.rand(2, 3, 16, 16), Memory()
    assert memory.normalization is not None
    view = DetectorView(BareDetector(), memory)
    assert view.normalization is IMAGENET
    view.features(IMAGENET.apply(raw))
    torch.testing.assert_close(memory.seen, memory.normalization.apply(raw))
    _, features = view.encode_and_features(IMAGENET.apply(raw))
    torch.testing.assert_close(features, memory.normalization.apply(raw).flatten(2).mT)


def test_a_detectors_own_normalization_is_undone_before() -> None:
    raw, memory, detector = torch.rand(2, 3, 16, 16), Memory(), BareDetector()
    own = Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    detector.normalization = own  # type: ignore[assignment]
    view = DetectorView(detector, memory)
    assert view.normalization is own
    view.features(own.apply(raw))
    assert memory.normalization is not None
    torch.testing.assert_close(memory.seen, memory.normalization.apply(raw))


def test_images_that_need_no_change_stay_as_they_are() -> None:
    images, memory, detector = torch.rand(2, 3, 16, 16), Memory(), BareDetector()
    view = DetectorView(detector, memory)
    memory.normalization = None  # it says nothing of what it wants
    view.features(images)
    assert memory.seen is images
    memory.normalization = Normalization(IMAGENET.mean, IMAGENET.std, "lanczos")
    view.features(images)  # the filter has been at work before
    assert memory.seen is images
    full = FullDetector()
    full.normalization = Normalization((0.5,) * 3, (0.5,) * 3)  # type: ignore[assignment]
    found = DetectorView(full, no_encoder).features(images)
    assert torch.equal(found, full.features(images))
