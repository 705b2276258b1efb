"""The frozen encoder: parity with the reference, every kind of ViT, weights, and errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.vit import ViTEncoder
from meds_plugin.encoders.weights import resize_pos_embed
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Golden = Callable[[str], dict[str, Any]]

DINOV2 = "vit_base_patch14_reg4_dinov2"
DINOV3 = "vit_small_patch16_dinov3"
TINY = {"embed_dim": 48, "depth": 12, "num_heads": 4}
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 4}
LAYERS = tuple(range(2, 10))


def tiny(weights: str = "random", image_size: int = 56) -> ViTEncoder:
    encoder = build_encoder(
        model=DINOV2, image_size=image_size, layers=LAYERS, weights=weights, model_args=TINY
    )
    assert isinstance(encoder, ViTEncoder)
    return encoder


def small(**arguments: object) -> ViTEncoder:
    settings: dict[str, Any] = {
        "model": DINOV2,
        "image_size": 56,
        "layers": [1, 2],
        "weights": "random",
        "model_args": SMALL,
    }
    settings.update(arguments)
    encoder = build_encoder(**settings)
    assert isinstance(encoder, ViTEncoder)
    return encoder


def tensors(arrays: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith(prefix) and value.dtype.kind != "U"
    }


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- parity with the reference ---------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_official_weights_give_the_references_tokens(
    golden: Golden, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"official{ending}"
    weights = tensors(golden("dinomaly_tiny_weights"), "sd.encoder.")
    assert {"register_tokens", "mask_token"} <= weights.keys()
    save_file(weights, path) if ending == ".safetensors" else torch.save(weights, path)
    encoder = tiny(str(path))
    expected = tensors(golden("dinomaly_tiny"), "")
    tokens = encoder.tokens(expected["input"])
    assert len(tokens) == 8
    torch.testing.assert_close(tokens[0], expected["tokens.block2"], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(tokens[-1], expected["tokens.block9"], rtol=0.0, atol=1e-4)
    features = encoder.features(expected["input"])
    torch.testing.assert_close(features, expected["memory_feature"], rtol=0.0, atol=1e-4)
    position = expected["pos_embed.interp_official"][:, 1:]
    torch.testing.assert_close(encoder.model.pos_embed, position, rtol=0.0, atol=1e-6)


def test_weights_in_timms_names_give_the_same(golden: Golden, tmp_path: Path) -> None:
    data = golden("dinomaly_tiny_timm")
    official = tensors(golden("dinomaly_tiny_weights"), "")
    pairs = zip(data["same.timm_key"], data["same.weights_key"], strict=True)
    weights = {str(own): official[str(name)] for own, name in pairs}
    weights["reg_token"] = torch.from_numpy(data["timm.reg_token"])
    weights["cls_token"] = torch.from_numpy(data["timm.cls_token"])
    weights["pos_embed"] = torch.from_numpy(data["native_pos_embed_timm"])
    save_file(weights, tmp_path / "timm.safetensors")
    encoder = tiny(str(tmp_path / "timm.safetensors"))
    resized = torch.from_numpy(data["timm.pos_embed"])
    torch.testing.assert_close(encoder.model.pos_embed, resized, rtol=0.0, atol=1e-6)
    images = torch.from_numpy(golden("dinomaly_tiny")["input"])
    for own, name in (
        (encoder.tokens(images)[-1], "out.block9_with_prefix"),
        (encoder.features(images), "out.forward_features_patch_tokens"),
    ):
        expected = torch.from_numpy(data[name])
        assert (own - expected).norm() / expected.norm() < 1e-5


# --- every kind of vision transformer --------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "registers": (DINOV2, {}, 14, 5),
    "class token": ("vit_base_patch14_dinov2", {}, 14, 1),
    "patches only": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, 16, 0),
    "rotary": (DINOV3, {}, 16, 5),
    "rotary, patches only": (DINOV3, {"class_token": False, "num_reg_tokens": 0}, 16, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_blocks_outputs_and_later_blocks_do_not_run(kind: str) -> None:
    model, extra, patch, prefix = KINDS[kind]
    encoder = small(model=model, image_size=(2 * patch, 3 * patch), model_args={**SMALL, **extra})
    assert encoder.image_size == (2 * patch, 3 * patch)
    assert (encoder.grid, encoder.patch_size, encoder.prefix_tokens) == ((2, 3), patch, prefix)
    assert (encoder.dim, encoder.heads, encoder.layers) == (32, 4, (1, 2))
    assert (encoder.channels, encoder.groups, encoder.additive) == ((32, 32), ((0,), (1,)), True)
    seen: dict[int, Tensor] = {}

    def keep(block: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[block] = output

        return hook

    for index, block in enumerate(encoder.model.blocks):
        block.register_forward_hook(keep(index))
    images = torch.randn(2, 3, *encoder.image_size)
    tokens = encoder.tokens(images)
    assert sorted(seen) == [0, 1, 2]
    for layer, token in zip(encoder.layers, tokens, strict=True):
        assert token.shape == (2, prefix + 6, 32)
        assert torch.equal(token, seen[layer])
        assert not token.requires_grad
    features = encoder.features(images)
    assert sorted(seen) == [0, 1, 2, 3]
    assert features.shape == (2, 6, 32)
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 6), rtol=0.0, atol=1e-5)
    assert torch.equal(encoder(images), features)
    both = encoder.tokens_and_features(images)
    assert all(torch.equal(*pair) for pair in zip(both[0], tokens, strict=True))
    assert torch.equal(both[1], features)
    maps, again = encoder.maps_and_features(images)
    assert all(torch.equal(*pair) for pair in zip(maps, encoder.layer_maps(images), strict=True))
    assert torch.equal(again, features)


@pytest.mark.parametrize("kind", KINDS)
def test_the_summary_is_the_class_token_or_the_patches_mean(kind: str) -> None:
    model, extra, patch, prefix = KINDS[kind]
    encoder = small(model=model, image_size=2 * patch, model_args={**SMALL, **extra})
    seen: list[Tensor] = []
    for norm in (encoder.model.norm, encoder.model.fc_norm):
        norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    images = torch.randn(2, 3, *encoder.image_size)
    summary, features = encoder.summary_and_features(images)
    assert len(seen) == 2  # one pass
    assert torch.equal(features, encoder.features(images))
    assert torch.equal(summary, seen[1][:, 0] if prefix else features.mean(1))
    with pytest.raises(ValueError, match=r"data\.image_size"):
        encoder.summary_and_features(images[..., 1:])


def test_register_tokens_are_no_summary() -> None:
    encoder = small(
        model="vit_medium_patch16_reg4_gap_256",
        image_size=32,
        model_args={"embed_dim": 32, "depth": 4, "num_heads": 4},
    )
    assert encoder.prefix_tokens == 4
    summary, features = encoder.summary_and_features(torch.randn(2, 3, 32, 32))
    assert torch.equal(summary, features.mean(1))


def test_rotary_weights_fit_any_image_size(tmp_path: Path) -> None:
    trained = small(model=DINOV3, image_size=64).model.state_dict()
    assert "pos_embed" not in trained
    save_file({**trained, "head.weight": torch.zeros(2, 32)}, tmp_path / "v3.safetensors")
    encoder = small(model=DINOV3, image_size=(32, 80), weights=str(tmp_path / "v3.safetensors"))
    dynamic = timm.create_model(DINOV3, num_classes=0, dynamic_img_size=True, **SMALL).eval()
    dynamic.load_state_dict(trained)
    images = torch.randn(1, 3, 32, 80)
    with torch.no_grad():
        expected = dynamic.forward_features(images)[:, 5:]
    torch.testing.assert_close(encoder.features(images), expected)


# --- frozen ----------------------------------------------------------------------------------


def test_it_stays_frozen_whatever_is_asked() -> None:
    encoder = small(model_args={**SMALL, "proj_drop_rate": 0.5})
    parent = nn.Sequential(encoder, nn.Linear(32, 1))
    images = torch.randn(2, 3, 56, 56)
    expected = encoder.features(images)
    encoder.requires_grad_(requires_grad=True).train()
    assert not any(p.requires_grad for p in encoder.parameters())
    parent.requires_grad_(requires_grad=True)
    parent.train()
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert torch.equal(encoder.features(images), expected)
    parent(images).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_tokens_can_be_trained_on() -> None:
    tokens = small().tokens(torch.randn(1, 3, 56, 56))[0]
    layer = nn.Linear(32, 1)
    layer(tokens).sum().backward()  # inference tensors would refuse
    assert layer.weight.grad is not None


# --- weights ---------------------------------------------------------------------------------


def test_random_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (small(seed=seed).model.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    name = "blocks.0.attn.qkv.weight"
    assert not torch.equal(first[name], other[name])


def test_pretrained_weights_are_taken_at_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    create: Callable[..., nn.Module] = timm.create_model
    native: dict[str, Tensor] = {}

    def fake(name: str, *, pretrained: bool = False, **arguments: object) -> nn.Module:
        model = create(name, **arguments)
        if pretrained:
            assert "img_size" not in arguments
            native.update(model.state_dict())
        return model

    monkeypatch.setattr(timm, "create_model", fake)
    encoder = small(weights=None)
    assert native["pos_embed"].shape == (1, 37 * 37, 32)
    own = encoder.model.state_dict()
    expected = resize_pos_embed(native["pos_embed"], (4, 4), prefix_tokens=0)
    assert torch.equal(own["pos_embed"], expected)
    name = "blocks.3.mlp.fc1.weight"
    assert torch.equal(own[name], native[name])


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create: Callable[..., nn.Module] = timm.create_model
    hub = logging.getLogger("huggingface_hub")
    hub.setLevel(logging.WARNING)
    levels: list[int] = []

    def offline(name: str, *, pretrained: bool = False, **arguments: object) -> nn.Module:
        if pretrained:
            levels.append(hub.level)
            msg = "cannot find the requested files\nPlease check your connection"
            raise OSError(msg)
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError) as caught:
        small(weights=None)
    message = one_line(caught)
    assert DINOV2 in message
    assert "encoder.weights=FILE" in message
    assert "cannot find the requested files" in message
    assert levels == [logging.ERROR]  # the hub's own lines about retries stay away
    assert hub.level == logging.WARNING


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    state = small().model.state_dict()
    state["blocks.0.norm9.weight"] = state.pop("blocks.0.norm1.weight")
    state["norm.bias"] = torch.zeros(33)
    torch.save({"model": state}, path)
    with pytest.raises(UserError) as caught:
        small(weights=str(path))
    message = one_line(caught)
    for part in (str(path), "1 missing (blocks.0.norm1.weight)", "norm9", "shape (norm.bias)"):
        assert part in message


def test_refused_weights_change_nothing() -> None:
    encoder = small()
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    state = {key: value + 1.0 for key, value in before.items() if key != "norm.bias"}
    with pytest.raises(UserError, match=r"here does not fit.*norm\.bias"):
        encoder.load_weights(state, source="here")
    after = encoder.model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"image_size": 60}, ["data.image_size=60", "60 -> 56 or 70"]),
        ({"image_size": [56, 100]}, ["data.image_size=[56, 100]", "nearest: 100 -> 98 or 112"]),
        ({"image_size": 4}, ["4 -> 14 or 28"]),
        ({"image_size": [1, 2, 3]}, ["data.image_size=[1, 2, 3]"]),
        ({"image_size": 0}, ["data.image_size=0"]),
        ({"layers": [2, 4]}, ["encoder.layers=[2, 4]", "0 to 3"]),
        ({"layers": [-1, 2]}, ["encoder.layers"]),
        ({"layers": [2, 1]}, ["encoder.layers"]),
        ({"layers": []}, ["encoder.layers"]),
        ({"layers": 3}, ["encoder.layers=3", "give a list of whole numbers"]),
        ({"layers": [1.7, 5]}, ["encoder.layers=[1.7, 5]"]),
        ({"layers": "23"}, ["encoder.layers=23"]),
        ({"model": "vit_of_no_kind"}, ["encoder.model=vit_of_no_kind"]),
        ({"model_args": {"width": 3}}, ["width"]),
        ({"pyramid": {"strid": 8}}, ["encoder.pyramid has no strid", "stride, resample, balance"]),
        ({"normalization": {"men": 0}}, ["encoder.normalization has no men", "mean, std"]),
        ({"normalization": {"std": [1, 0, 1]}}, ["encoder.normalization: std must be above 0"]),
    ],
)
def test_wrong_input_is_named(arguments: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        small(**arguments)
    message = one_line(caught)
    assert all(part in message for part in told), message


def test_images_of_another_size_are_refused() -> None:
    encoder = small()
    for images in (torch.zeros(1, 3, 56, 70), torch.zeros(3, 56, 56)):
        with pytest.raises(ValueError, match=r"\[B, 3, 56, 56\]"):
            encoder.tokens(images)
        with pytest.raises(ValueError, match=r"data\.image_size"):
            encoder.features(images)
