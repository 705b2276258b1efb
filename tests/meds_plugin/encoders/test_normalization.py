"""How images are prepared for a network: its own values, those of timm, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import meds_plugin
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.normalization import IMAGENET, Normalization, normalization_of
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from meds_plugin.encoders.base import FrozenEncoder

HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
UNEVEN = Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "lanczos")

# --- values ----------------------------------------------------------------------------------


def test_imagenets_values_are_the_default_ones() -> None:
    assert meds_plugin.Normalization is Normalization
    assert IMAGENET.mean == (0.485, 0.456, 0.406)
    assert IMAGENET.std == (0.229, 0.224, 0.225)
    assert IMAGENET.interpolation == "bilinear"
    assert Preprocess(8).normalization == IMAGENET


def test_lists_of_any_kind_become_numbers() -> None:
    given = OmegaConf.create({"mean": [0, 1, 0.5], "std": [1, 2, 0.5]})
    made = Normalization(given.mean, given.std, "bicubic")
    assert made == Normalization((0.0, 1.0, 0.5), (1.0, 2.0, 0.5), "bicubic")
    assert Normalization(**asdict(made)) == made
    assert hash(made) == hash(Normalization(**asdict(made)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 1, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_round_trip_gives_the_images_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.rand(shape, dtype=dtype)
    normal = UNEVEN.apply(images)
    for channel, (mean, std) in enumerate(zip(UNEVEN.mean, UNEVEN.std, strict=True)):
        own = images.select(-3, channel)
        torch.testing.assert_close(normal.select(-3, channel), (own - mean) / std)
    assert normal.dtype == dtype
    torch.testing.assert_close(UNEVEN.undo(normal), images)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mean": [0.5, 0.5]}, "mean must be three numbers, got [0.5, 0.5]"),
        ({"mean": 0.5}, "mean must be three numbers, got 0.5"),
        ({"mean": "0.5"}, "mean must be three numbers, got '0.5'"),
        ({"mean": [0.5, None, 0.5]}, "mean must be three numbers"),
        ({"std": [1, 1, float("nan")]}, "std must be three numbers"),
        ({"std": [1, 1, float("inf")]}, "std must be three numbers"),
        ({"std": [1, 0, 1]}, "std must be above 0, got [1.0, 0.0, 1.0]"),
        ({"std": [1, -1, 1]}, "std must be above 0"),
        ({"interpolation": "nearest"}, "one of bicubic, bilinear, lanczos, got 'nearest'"),
        ({"interpolation": None}, "interpolation must be one of bicubic"),
        ({"interpolation": ["bicubic"]}, "interpolation must be one of bicubic"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        Normalization(**{"mean": (0.5,) * 3, "std": (0.5,) * 3, **values})
    message = str(caught.value)
    assert message.startswith("encoder.normalization: ")
    assert told in message
    assert "\n" not in message


# --- whose -----------------------------------------------------------------------------------


def test_a_detectors_own_goes_before_its_encoders() -> None:
    detector = nn.Module()
    detector.part = nn.Sequential(nn.Linear(2, 2))
    assert normalization_of(detector) is None
    detector.part.append(encoder_of("tf_efficientnet_lite0"))
    assert normalization_of(detector) == HALF
    detector.normalization = UNEVEN  # type: ignore[assignment]
    assert normalization_of(detector) is UNEVEN
    detector.normalization = "half"  # type: ignore[assignment]  # another thing of that name
    assert normalization_of(detector) == HALF


def test_what_is_no_module_may_say_it_too() -> None:
    class Features:
        normalization = UNEVEN

        def __call__(self, images: Tensor) -> Tensor:
            return images

    assert normalization_of(Features()) is UNEVEN
    assert normalization_of(torch.tanh) is None
    assert normalization_of(None) is None


# --- timm's ----------------------------------------------------------------------------------

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 4}
KINDS: dict[str, tuple[str, int, dict[str, Any], Normalization]] = {
    "CNN": ("tf_efficientnet_lite0", 64, {}, HALF),
    "ViT": ("vit_tiny_patch16_224", 48, SMALL, HALF),
    "DINOv2": (
        "vit_base_patch14_reg4_dinov2",
        56,
        SMALL,
        Normalization(IMAGENET.mean, IMAGENET.std, "bicubic"),
    ),
    "bilinear": ("wide_resnet50_2.tv_in1k", 64, {}, IMAGENET),
    "no values of its own": (
        "vit_tiny_patch16_224",
        32,
        {**SMALL, "pretrained_cfg": {"url": ""}},
        Normalization(IMAGENET.mean, IMAGENET.std, "bicubic"),
    ),
}


def encoder_of(model: str, size: int = 64, **arguments: Any) -> FrozenEncoder:
    return build_encoder(model=model, image_size=size, layers=[1, 2], weights="random", **arguments)


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_prepared_as_timm_does(kind: str) -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)
    model, size, extra, wanted = KINDS[kind]
    encoder = encoder_of(model, size, model_args=extra)
    assert encoder.normalization == wanted
    config = resolve_data_config(
        {"input_size": (3, size, size), "crop_pct": 1.0, "crop_mode": "squash"},
        pretrained_cfg=encoder.model.pretrained_cfg,
    )
    theirs = create_transform(**config, is_training=False)
    ours = Preprocess(size, normalization=encoder.normalization)
    for shape in ((90, 131), (200, 77), (20, 30)):
        image = picture(*shape)
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-5)


def test_filters_are_not_all_the_same() -> None:
    image = picture(90, 131)
    found = [
        Preprocess(64, normalization=Normalization(HALF.mean, HALF.std, kind))(image)
        for kind in ("bicubic", "bilinear", "lanczos")
    ]
    for place in range(3):
        assert (found[place] - found[place - 1]).abs().max() > 0.05


def test_a_network_that_timm_knows_nothing_of_gets_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = timm.create_model

    def bare(name: str, **arguments: Any) -> nn.Module:
        network: nn.Module = create(name, **arguments)
        del network.pretrained_cfg
        return network

    monkeypatch.setattr(timm, "create_model", bare)
    expected = Normalization(IMAGENET.mean, IMAGENET.std, "bicubic")
    assert encoder_of("vit_tiny_patch16_224", model_args=SMALL).normalization == expected


@pytest.mark.parametrize("filter_", ["nearest", "random"])
def test_a_filter_that_is_not_smooth_is_replaced(filter_: str) -> None:
    extra = {**SMALL, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "interpolation": filter_}}
    found = encoder_of("vit_tiny_patch16_224", model_args=extra).normalization
    assert found == Normalization((0.1, 0.2, 0.3), IMAGENET.std, "bicubic")


def test_values_of_ones_own_go_before_timms() -> None:
    given = {"std": [0.1, 0.2, 0.4], "interpolation": "lanczos"}
    for model in ("vit_tiny_patch16_224", "resnet10t"):
        found = encoder_of(model, normalization=given).normalization
        own = resolve_data_config(model=timm.create_model(model))
        assert found == Normalization(own["mean"], (0.1, 0.2, 0.4), "lanczos")
