"""Dinomaly: parity with the reference, its structure, its layers and its hard mining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.dinomaly import (
    Dinomaly,
    LinearAttention,
    TransformerBlock,
    hard_mining_factors,
)
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.utils.errors import UserError
from tests.backbones.reference import Reference, tensors_of
from tests.backbones.small import small, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]


@pytest.fixture
def reference(golden: Golden) -> Reference:
    weights = tensors_of(golden("dinomaly_tiny_weights"))
    return Reference(golden("dinomaly_tiny"), weights, width=48, kind=Dinomaly)


# --- parity with the reference ---------------------------------------------------------------


def test_maps_and_features_are_the_references(reference: Reference) -> None:
    model = reference.model()
    reference.check_maps(model)
    features = reference["memory_feature"]
    torch.testing.assert_close(model.features(reference["input"]), features, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.27, 0.5, 0.9])
def test_the_loss_and_its_gradients_are_the_references(reference: Reference, share: float) -> None:
    model = reference.model(dropout=0.0, hard_mining=share)
    encoded = model.encode(reference["input"])
    loss = model.loss(encoded, step=1000, total_steps=10_000)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference[f"hm{share}.loss"]), abs=1e-5)
    reference.check_gradients(model, f"hm{share}")


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_distilling_into_the_map_has_the_references_gradients(
    reference: Reference, kind: str
) -> None:
    reference.check_distillation(reference.model(dropout=0.0), kind)


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_six_optimiser_steps_go_as_in_the_reference(reference: Reference, stage: str) -> None:
    model = reference.model(dropout=0.0, hard_mining_steps=4)
    encoded = model.encode(reference["input"])
    reference.check_six_steps(model, encoded, stage, OptimizerSettings(warmup=3))


# --- structure -------------------------------------------------------------------------------


def test_prefix_tokens_are_reconstructed_too() -> None:
    model = small(Dinomaly, image_size=(28, 70), layers=(1, 2)).eval()
    widen(model)
    images = torch.randn(2, 3, 28, 70)
    encoded = model.encode(images)
    tokens = model.encoder.tokens(images)
    assert torch.equal(encoded, torch.cat(tokens, dim=2))
    first = model.decoder[0](model.bottleneck[0](torch.stack(tokens).mean(0)))
    second = model.decoder[1](first)
    torch.testing.assert_close(model.reconstructions(encoded), [second, first])
    distances = [
        1 - F.cosine_similarity(target[:, 5:], reconstructed[:, 5:], dim=-1)
        for target, reconstructed in zip(tokens, [second, first], strict=True)
    ]
    expected = torch.stack(distances).mean(0).view(2, 2, 5)
    torch.testing.assert_close(model.anomaly_map(encoded), expected)


@pytest.mark.parametrize(
    ("arguments", "told"), [({"dropout": 1.5}, "dropout"), ({"hard_mining": -0.1}, "hard_mining")]
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}"):
        small(Dinomaly, **arguments)


# --- layers ----------------------------------------------------------------------------------


def quadratic(layer: LinearAttention, tokens: Tensor) -> Tensor:
    """Compute the attention from its T x T weights, in double precision."""
    qkv = F.linear(tokens.double(), layer.qkv.weight.double(), layer.qkv.bias.double())
    mixed = mix(qkv, layer.heads)
    return F.linear(mixed, layer.proj.weight.double(), layer.proj.bias.double())


def mix(qkv: Tensor, heads: int) -> Tensor:
    batch, count, width = qkv.shape
    query, key, value = qkv.double().view(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
    weights = (F.elu(query) + 1.0) @ (F.elu(key) + 1.0).mT
    mixed = (weights / weights.sum(-1, keepdim=True)) @ value
    merged: Tensor = mixed.transpose(1, 2).reshape(batch, count, width // 3)
    return merged


def test_linear_attention_is_kernel_attention() -> None:
    layer, tokens = LinearAttention(24, 3), torch.randn(2, 17, 24)
    torch.testing.assert_close(layer(tokens).double(), quadratic(layer, tokens), atol=1e-6, rtol=0)


def test_linear_attention_sums_in_single_precision_under_autocast() -> None:
    layer, tokens = LinearAttention(32, 2), torch.randn(1, 800, 32)
    nn.init.constant_(layer.qkv.bias[:64], -7.0)  # elu there is -1 in bfloat16
    seen: list[Tensor] = []
    layer.qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    layer.proj.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    qkv, mixed = seen
    assert qkv.dtype == mixed.dtype == torch.bfloat16
    exact = mix(qkv, layer.heads)
    # Rounded once, at the end; entries near zero come from cancellation.
    allowed = 2.0**-8 * exact.abs() + 1e-4 * exact.abs().max()
    assert ((mixed.double() - exact).abs() <= allowed).all()
    half = layer.to(torch.bfloat16)(tokens.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16


def test_linear_attention_survives_a_kernel_that_rounds_to_zero() -> None:
    layer = LinearAttention(8, 2)
    nn.init.zeros_(layer.qkv.weight)
    with torch.no_grad():
        layer.qkv.bias[:16] = -60.0
    tokens = torch.randn(1, 5, 8, requires_grad=True)
    layer(tokens).sum().backward()
    assert tokens.grad is not None
    assert torch.isfinite(layer(tokens)).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("learning", [False, True])
def test_the_kernel_is_elu_plus_one_with_its_gradient(learning: bool) -> None:
    """Against the layer built of torch's own functions."""
    layer = LinearAttention(16, 2)
    tokens = (3 * torch.randn(2, 9, 16)).requires_grad_(learning)
    query, key, value = layer.qkv(tokens).view(2, 9, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind()
    query, key = F.elu(query) + 1, F.elu(key) + 1
    mixed = (query @ (key.mT @ value)) / (query @ key.sum(-2, keepdim=True).mT)
    expected = layer.proj(mixed.transpose(1, 2).flatten(2))
    with torch.set_grad_enabled(learning):
        out = layer(tokens)
    torch.testing.assert_close(out, expected)
    if learning:
        weights = [tokens, *layer.parameters()]
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), weights),
            torch.autograd.grad(expected.square().sum(), weights),
        )


def test_a_block_is_two_residual_steps() -> None:
    block = TransformerBlock(16, LinearAttention(16, 2))
    tokens = torch.randn(2, 5, 16)
    middle = tokens + block.attn(F.layer_norm(tokens, (16,), eps=1e-8))
    expected = middle + block.mlp.fc2(F.gelu(block.mlp.fc1(F.layer_norm(middle, (16,), eps=1e-8))))
    torch.testing.assert_close(block(tokens), expected)


# --- hard mining -----------------------------------------------------------------------------


def test_the_hardest_locations_get_their_whole_gradient() -> None:
    distances = torch.tensor(
        [[[0.1, 0.9, 0.5], [7.0, 7.0, 7.0]], [[0.2, 0.5, 0.3], [1.0, 2.0, 3.0]]]
    )
    factors = hard_mining_factors(distances, 0.5)
    expected = torch.tensor([[[0.1, 1, 1], [1, 1, 1]], [[0.1, 1, 0.1], [0.1, 0.1, 0.1]]])
    torch.testing.assert_close(factors, expected)
    assert (hard_mining_factors(distances, 0.0) == 1).all()
    most = hard_mining_factors(distances, 1.0)  # the reference would fail here
    assert (most[:, 0] == 1).sum() == 1


def test_the_share_of_easy_locations_rises_over_the_first_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = []

    def record(distances: Tensor, share: float) -> Tensor:
        shares.append(share)
        return torch.ones_like(distances)

    monkeypatch.setattr("backbones.dinomaly.hard_mining_factors", record)
    model = small(Dinomaly, hard_mining=0.8, hard_mining_steps=10)
    encoded = model.encode(torch.randn(1, 3, 56, 56))
    for step in (0, 5, 10, 999):
        model.loss(encoded, step=step, total_steps=20)
    assert shares == [0.0, 0.4, 0.8, 0.8]


def test_dropout_acts_in_training_only() -> None:
    model = small(Dinomaly, dropout=0.2)
    encoded = model.encode(torch.randn(4, 3, 56, 56))
    assert not torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
    model.eval()
    assert torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
