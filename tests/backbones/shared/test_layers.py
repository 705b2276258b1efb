"""The shared decoder layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.shared.layers import Dropout, Mlp, PreNormBlock, init_weights


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


def test_dropout_drops_at_its_rate_preserves_the_mean_and_follows_the_global_generator() -> None:
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
    attention = nn.Linear(64, 64)
    block = PreNormBlock(64, attention)
    nn.init.ones_(block.norm1.bias)
    init_weights(block)
    weight = block.mlp.fc1.weight.detach()
    assert weight.abs().max() <= 0.03
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert not attention.bias.any()
    assert not block.norm1.bias.any()
    assert (block.norm1.weight == 1).all()
