"""The shared decoder blocks and loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers import (
    Dropout,
    LinearAttention,
    Mlp,
    TransformerBlock,
    cosine_distance,
    flat_cosine_loss,
    init_weights,
    scale_gradient,
)


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


def test_dropout_acts_at_all_three_places_and_only_in_training() -> None:
    mlp = Mlp(64, dropout=0.5)
    rates = []
    for layer in (mlp.fc1, mlp.fc2):
        layer.register_forward_pre_hook(lambda _, x: rates.append((x[0] == 0).float().mean()))
    tokens = torch.rand(8, 64, 64) + 1.0
    out = mlp(tokens)
    rates.append((out == 0).float().mean())
    assert [float(rate) for rate in rates] == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
    assert (mlp.eval()(tokens) != 0).all()


def test_dropout_drops_at_its_rate_keeps_the_mean_and_follows_the_global_generator() -> None:
    values = torch.full((101, 999), 2.0, requires_grad=True)
    for rate in (0.1, 0.2, 0.7):
        drop = Dropout(rate)
        torch.manual_seed(4)
        out = drop(values)
        torch.manual_seed(4)
        assert torch.equal(out, drop(values))
        assert not torch.equal(out, drop(values))
        lost = (out == 0).double()
        assert float(lost.mean()) == pytest.approx(rate, abs=0.004)
        assert float(out.detach().mean()) == pytest.approx(2.0, abs=0.03)
        # Neither rows, columns nor neighbours are dropped together.
        assert float(lost.mean(1).std()) < 0.03
        assert float(lost.mean(0).std()) < 0.07
        together = (lost[:, 1:] * lost[:, :-1]).mean()
        assert float(together) == pytest.approx(rate**2, abs=0.006)
        (gradient,) = torch.autograd.grad(out.sum(), values)
        torch.testing.assert_close(gradient, out.detach() / 2)
    half = Dropout(0.5)(torch.ones(64, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert set(half.tolist()) == {0.0, 2.0}


def test_dropout_at_the_ends_and_in_evaluation() -> None:
    values = torch.rand(50) + 1
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)


def test_initial_weights() -> None:
    attention = LinearAttention(64, 2)
    block = TransformerBlock(64, attention)
    nn.init.ones_(block.norm1.bias)
    init_weights(block)
    weight = block.mlp.fc1.weight.detach()
    assert weight.abs().max() <= 0.03
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert not attention.qkv.bias.any()
    assert not block.norm1.bias.any()
    assert (block.norm1.weight == 1).all()


def test_distances_are_in_single_precision_and_never_negative() -> None:
    vectors = torch.randn(50, 7, dtype=torch.bfloat16)
    same = cosine_distance(vectors, 3 * vectors)
    assert same.dtype == torch.float32
    assert (same >= 0).all()
    assert same.max() < 1e-3
    torch.testing.assert_close(cosine_distance(vectors, -vectors), torch.full((50,), 2.0))


def test_scaling_a_gradient_leaves_the_value() -> None:
    values = torch.randn(100, requires_grad=True)
    factor = torch.rand(100)
    scaled = scale_gradient(values, factor)
    assert torch.equal(scaled, values)
    torch.autograd.backward(scaled.square().sum())
    assert values.grad is not None
    torch.testing.assert_close(values.grad, 2 * values.detach() * factor)


def test_the_flat_loss_weights_the_gradient_of_every_location() -> None:
    targets = torch.randn(3, 2, 5, 7, requires_grad=True)
    start = torch.randn(3, 2, 5, 7)
    factor = torch.rand(3, 2, 5)

    plain = start.clone().requires_grad_()
    cosines = F.cosine_similarity(targets.flatten(2), plain.flatten(2), dim=-1)
    expected = (1.0 - cosines).mean()
    (gradient,) = torch.autograd.grad(expected, plain)

    seen = []

    def factors(distances: Tensor) -> Tensor:
        seen.append(distances)
        return factor

    weighted = start.clone().requires_grad_()
    loss = flat_cosine_loss(targets.unbind(1), weighted.unbind(1), factors, patches=5)
    torch.autograd.backward(loss)
    torch.testing.assert_close(loss, expected)
    assert weighted.grad is not None
    torch.testing.assert_close(weighted.grad, gradient * factor.unsqueeze(-1))
    assert targets.grad is None
    torch.testing.assert_close(seen[0], cosine_distance(targets, start))
    assert not seen[0].requires_grad

    groups = [torch.cat([torch.randn(3, 2, 7), each], dim=1) for each in start.unbind(1)]
    longer = [group.requires_grad_() for group in groups]
    prefixed = [torch.cat([torch.randn(3, 2, 7), each], dim=1) for each in targets.unbind(1)]
    again = flat_cosine_loss(prefixed, longer, factors, patches=5)
    torch.testing.assert_close(again, loss)
    for group, first in enumerate(torch.autograd.grad(again, longer)):
        assert not first[:, :2].any()
        torch.testing.assert_close(first[:, 2:], weighted.grad[:, group])
