"""Encoders with stages: tokens on one grid, frozen state, weights in three namings, errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.detectors.outputs import grid_of
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.pyramid import PyramidEncoder, PyramidSettings
from meds_plugin.utils.errors import UserError
from tests.toys import port_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meds_plugin.encoders.base import FrozenEncoder

    Golden = Callable[[str], dict[str, Any]]

RESNET, EFFICIENTNET = "resnet10t", "tf_efficientnet_b0"
RAW = {"resample": "bilinear", "balance": False}


def make(model: str = RESNET, **arguments: Any) -> FrozenEncoder:
    settings = {"image_size": 64, "layers": [0, 1, 2], "weights": "random", **arguments}
    return build_encoder(model=model, **settings)


def messy(model: str) -> nn.Module:
    """Return timm's own model with batch statistics that matter."""
    network: nn.Module = timm.create_model(model)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return network


# --- feature maps ----------------------------------------------------------------------------


class Taps(nn.Module):
    """Stands for a network: hands out given feature maps."""

    def __init__(self, maps: list[Tensor], width: int = 224) -> None:
        super().__init__()
        self.maps = maps
        self.feature_info = [{"reduction": width // tap.shape[-1]} for tap in maps]

    def forward_intermediates(self, images: Tensor, **_: object) -> list[Tensor]:
        return self.maps


def test_alignment_is_the_references(golden: Golden) -> None:
    data = golden("hvq_tiny")
    pyramid = [torch.from_numpy(data[f"pyramid0.{level}"]) for level in range(4)]
    settings = PyramidSettings(resample="bilinear", balance=False)
    encoder = PyramidEncoder(Taps(pyramid), (224, 224), range(4), settings=settings)
    assert (encoder.grid, encoder.channels) == ((14, 14), (2, 3, 4, 7))
    own = torch.cat(encoder.layer_maps(torch.zeros(1, 3, 224, 224)), dim=1)
    expected = torch.from_numpy(data["pyramid0.aligned"])
    torch.testing.assert_close(own, expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "taps"), [(RESNET, ("layer1", "layer3")), (EFFICIENTNET, ("blocks.1", "blocks.4"))]
)
def test_maps_are_the_stages_outputs_on_the_deepest_grid(model: str, taps: tuple[str, str]) -> None:
    encoder = make(model, image_size=(64, 96), layers=[1, 3], pyramid=RAW)
    assert isinstance(encoder, PyramidEncoder)
    assert encoder.grid == (4, 6)
    assert (encoder.groups, encoder.additive, encoder.prefix_tokens) == (((0, 1),), False, 0)
    assert sum(encoder.channels) % encoder.heads == 0
    seen: dict[str, Tensor] = {}
    for name, module in encoder.model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    images = torch.randn(2, 3, 64, 96)
    maps = encoder.layer_maps(images)
    assert not any(name.startswith(("layer4", "blocks.5")) for name in seen)  # cost for nothing
    assert torch.equal(maps[1], seen[taps[1]])
    assert seen[taps[0]].shape[-2:] == (16, 24)
    corners = (slice(None), slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
    torch.testing.assert_close(maps[0][corners], seen[taps[0]][corners])
    assert tuple(tap.shape[1] for tap in maps) == encoder.channels
    features = encoder(images)
    assert torch.equal(features[:, 7], torch.cat(maps, dim=1)[:, :, 1, 1])
    assert grid_of(features, images) == (4, 6)
    both = encoder.maps_and_features(images)
    assert torch.equal(torch.cat(both[0], dim=1), torch.cat(maps, dim=1))
    assert torch.equal(both[1], features)
    tokens, again = encoder.tokens_and_features(images)
    assert all(torch.equal(*pair) for pair in zip(tokens, encoder.tokens(images), strict=True))
    assert torch.equal(torch.cat(tokens, dim=2), features)
    assert torch.equal(again, features)


# --- settings --------------------------------------------------------------------------------


def three(*, scales: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> list[Tensor]:
    """Return stages of two images 64 x 96 at strides of 4, 8 and 16, of 3, 5 and 8 channels."""
    generator = torch.Generator().manual_seed(5)
    sizes = ((3, 16, 24), (5, 8, 12), (8, 4, 6))
    return [
        scale * torch.randn(2, *size, generator=generator)
        for scale, size in zip(scales, sizes, strict=True)
    ]


def tokens_of(taps: list[Tensor], **settings: Any) -> list[Tensor]:
    encoder = PyramidEncoder(
        Taps(taps, 96), (64, 96), range(len(taps)), settings=PyramidSettings(**settings)
    )
    return encoder.layer_maps(torch.zeros(2, 3, 64, 96))


def blocks(tap: Tensor, side: int) -> Tensor:
    """Return the mean of each block of ``side`` x ``side``."""
    batch, channels, height, width = tap.shape
    cut = tap.reshape(batch, channels, height // side, side, width // side, side)
    return cut.mean(dim=(3, 5))


def test_finer_stages_are_averaged_over_a_tokens_area() -> None:
    taps = three()
    maps = tokens_of(taps, balance=False)
    torch.testing.assert_close(maps[0], blocks(taps[0], 4))
    torch.testing.assert_close(maps[1], blocks(taps[1], 2))
    assert torch.equal(maps[2], taps[2])
    wide = tokens_of(taps, balance=False, stride=32)
    for tap, found in zip(taps, wide, strict=True):
        torch.testing.assert_close(found, blocks(tap, tap.shape[2] // 2))


def test_coarser_stages_are_interpolated() -> None:
    taps = three()
    taps[2][:, 0] = 3.0
    maps = tokens_of(taps, balance=False, stride=8)
    torch.testing.assert_close(maps[0], blocks(taps[0], 2))
    assert torch.equal(maps[1], taps[1])
    expected = F.interpolate(taps[2], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps[2], expected)
    assert torch.equal(maps[2][:, 0], torch.full((2, 8, 12), 3.0))
    # Between the middles of two tokens it is a mean, at the edges the nearest one's.
    middle = taps[2][:, 1, :, 0] * 0.75 + taps[2][:, 1, :, 1] * 0.25
    torch.testing.assert_close(maps[2][:, 1, 0, 1], middle[:, 0])
    torch.testing.assert_close(maps[2][:, 1, 0, 0], taps[2][:, 1, 0, 0])


@pytest.mark.parametrize("weights", [None, (1, 1, 1), (1.0, 0.5, 4)])
@pytest.mark.parametrize("resample", ["area", "bilinear"])
def test_balanced_stages_have_the_lengths_of_their_weights(
    weights: tuple[float, ...] | None, resample: str
) -> None:
    raw = tokens_of(three(scales=(9.0, 0.1, 1.0)), resample=resample, balance=False)
    maps = tokens_of(three(scales=(9.0, 0.1, 1.0)), resample=resample, weights=weights)
    shares = torch.tensor(weights or (1.0, 1.0, 1.0))
    wanted = (shares / shares.sum() * 16).sqrt()  # of 3 + 5 + 8 channels
    for tap, found, length in zip(raw, maps, wanted, strict=True):
        torch.testing.assert_close(found.norm(dim=1), length.expand(2, 4, 6))
        torch.testing.assert_close(F.cosine_similarity(tap, found), torch.ones(2, 4, 6))
    torch.testing.assert_close(torch.cat(maps, dim=1).square().mean(1), torch.ones(2, 4, 6))


def test_weights_are_the_stages_shares_in_a_cosine() -> None:
    weights = torch.tensor([1.0, 1.0, 0.5])
    maps = tokens_of(three(), weights=weights.tolist())
    whole = torch.cat(maps, dim=1)
    cosine = F.cosine_similarity(whole[:1], whole[1:])
    each = torch.stack([F.cosine_similarity(stage[:1], stage[1:]) for stage in maps])
    torch.testing.assert_close(cosine, (each * (weights / 2.5).view(3, 1, 1, 1)).sum(0))


def test_the_scale_of_a_balanced_stage_does_not_matter() -> None:
    one, other = (tokens_of(three(scales=scales)) for scales in ((1, 1, 1), (1e-3, 7, 1e4)))
    for pair in zip(one, other, strict=True):
        torch.testing.assert_close(*pair)


def test_tokens_without_a_direction_and_of_half_precision_stay_finite() -> None:
    taps = [1e4 * tap.half() for tap in three()]  # squares of these are infinite
    taps[1][:, :, :2, :2] = 0.0
    maps = tokens_of(taps)
    assert all(each.dtype == torch.float32 for each in maps)
    assert all(bool(torch.isfinite(each).all()) for each in maps)
    assert not maps[1][:, :, 0, 0].any()
    torch.testing.assert_close(maps[0].norm(dim=1), torch.full((2, 4, 6), (16 / 3) ** 0.5))


def test_settings_of_a_configuration_reach_the_encoder() -> None:
    given = {"stride": 4, "resample": "area", "balance": True, "weights": [1, 2, 1]}
    encoder = make(pyramid=OmegaConf.create(given))
    assert isinstance(encoder, PyramidEncoder)
    assert encoder.grid == (16, 16)
    squares = [
        each.square().sum(1).mean() for each in encoder.layer_maps(torch.randn(1, 3, 64, 64))
    ]
    torch.testing.assert_close(torch.stack(squares), torch.tensor([64.0, 128.0, 64.0]))
    plain = make(pyramid=dict.fromkeys(("stride", "weights")))
    assert isinstance(plain, PyramidEncoder)
    assert plain.settings == PyramidSettings()


@pytest.mark.parametrize(
    ("pyramid", "told"),
    [
        ({"strid": 8}, "encoder.pyramid has no strid: give some of stride, resample, balance, w"),
        ({"stride": 12}, "token stride (encoder.pyramid.stride) 12; nearest: 64 -> 60 or 72"),
        ({"stride": 0}, "encoder.pyramid.stride must be a number of pixels, got 0"),
        ({"stride": -8}, "encoder.pyramid.stride must be"),
        ({"stride": 8.0}, "encoder.pyramid.stride must be"),
        ({"stride": "8"}, "encoder.pyramid.stride must be"),
        ({"stride": True}, "encoder.pyramid.stride must be"),
        ({"resample": "nearest"}, "encoder.pyramid.resample must be area or bilinear, got 'near"),
        ({"resample": None}, "encoder.pyramid.resample must be area or bilinear, got None"),
        ({"balance": "yes"}, "encoder.pyramid.balance must be true or false, got 'yes'"),
        ({"balance": 1}, "encoder.pyramid.balance must be true or false"),
        (
            {"weights": [1, 1]},
            "encoder.pyramid.weights=[1, 1] must be one for each of the 3 target",
        ),
        ({"weights": [1] * 4}, "must be one for each of the 3 target stages (encoder.layers)"),
        ({"weights": [1, -1, 1]}, "encoder.pyramid.weights must be positive numbers, got [1, -1"),
        ({"weights": [1, 0, 1]}, "encoder.pyramid.weights must be positive numbers"),
        ({"weights": [1, None, 1]}, "encoder.pyramid.weights must be positive numbers"),
        ({"weights": [1, float("nan"), 1]}, "encoder.pyramid.weights must be positive numbers"),
        ({"weights": [1, float("inf"), 1]}, "encoder.pyramid.weights must be positive numbers"),
        ({"weights": []}, "encoder.pyramid.weights must be positive numbers, got []"),
        ({"weights": "111"}, "encoder.pyramid.weights must be positive numbers, got '111'"),
        ({"weights": 2}, "encoder.pyramid.weights must be positive numbers, got 2"),
        ({"weights": [1, 1, 1], "balance": False}, "weights need encoder.pyramid.balance=true"),
    ],
)
def test_a_wrong_setting_is_named(pyramid: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        make(pyramid=pyramid)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message


# --- presets and frozen state ----------------------------------------------------------------


def test_the_presets_taps_of_efficientnet_b4_are_the_references() -> None:
    encoder = make("tf_efficientnet_b4", image_size=224, layers=[0, 1, 2, 3])
    assert encoder.channels == (24, 32, 56, 160)
    stages = encoder.model.feature_info
    assert [stage["reduction"] for stage in stages[:4]] == [2, 4, 8, 16]


def test_it_stays_frozen_with_its_batch_statistics() -> None:
    encoder = make()
    parent = nn.Sequential(encoder).requires_grad_(requires_grad=True).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    images = 3.0 + torch.randn(4, 3, 64, 64)
    first = parent(images)
    assert not first.requires_grad
    torch.testing.assert_close(parent(images[:1]), first[:1], rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in parent.parameters())
    after = encoder.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


# --- weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [RESNET, EFFICIENTNET])
def test_weights_of_the_whole_classifier_fit(model: str, tmp_path: Path) -> None:
    whole = messy(model).eval()
    state = {k: v for k, v in whole.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert any(key.startswith(("fc.", "classifier.")) for key in state)
    save_file(state, tmp_path / "whole.safetensors")
    encoder = make(model, weights=str(tmp_path / "whole.safetensors"), pyramid=RAW)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    torch.testing.assert_close(encoder.layer_maps(images)[-1], expected[2], rtol=1e-5, atol=1e-5)


def test_weights_in_the_names_of_the_references_port_give_the_same(tmp_path: Path) -> None:
    state = messy(EFFICIENTNET).state_dict()
    renamed = port_names(state)
    assert len(renamed) == len(state)
    assert {"_blocks.15._bn2.weight", "_blocks.0._se_reduce.bias"} <= renamed.keys()
    torch.save(renamed, tmp_path / "port.pth")
    encoder = make(EFFICIENTNET, weights=str(tmp_path / "port.pth"))
    own = encoder.model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(port_names(messy("tf_efficientnet_b1").state_dict()), path)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} does not fit .*unexpected"):
        make(EFFICIENTNET, weights=str(path))


def test_random_weights_come_from_the_seed_alone() -> None:
    states = [make(seed=seed).state_dict() for seed in (3, 3, 4)]
    key = "model.layer1.0.conv1.weight"
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"image_size": 60}, "data.image_size=60 .* stride 8; nearest: 60 -> 56 or 64"),
        ({"layers": [4, 5]}, r"encoder\.layers=\[4, 5\] .* 0 to 4: the encoder has 5 stages"),
        ({"layers": []}, r"encoder\.layers=\[\]"),
        ({"model": "resnet_of_no_kind"}, "encoder.model=resnet_of_no_kind .*Unknown model"),
        ({"model_args": {"width": 3}}, "width"),
        ({"model": "swin_tiny_patch4_window7_224", "image_size": 40}, "data.image_size=40"),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


def test_a_model_without_features_inside_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda name, **_: nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"encoder\.model=odd: timm's Linear returns no"):
        make("odd")


def test_a_network_made_for_another_size_is_named() -> None:
    network = timm.create_model("mixer_s16_224", num_classes=0)
    with pytest.raises(UserError, match=r"MlpMixer\) does not take images of 64 x 64"):
        PyramidEncoder(network, (64, 64), [1])


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, 64, 64\], got \(1, 3, 64, 96\)"):
        make().layer_maps(torch.zeros(1, 3, 64, 96))
