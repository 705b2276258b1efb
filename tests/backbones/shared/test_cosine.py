"""Cosine distances and the loss that weights gradients by location."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.shared.cosine import cosine_distance, flat_cosine_loss, scale_gradient


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
