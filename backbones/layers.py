"""Decoder blocks and the loss that reconstruction detectors on a frozen ViT share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LinearAttention",
    "Mlp",
    "PreNormBlock",
    "TransformerBlock",
    "cosine_distance",
    "flat_cosine_loss",
    "init_weights",
    "scale_gradient",
]

NORM_EPS = 1e-8  # of the decoders; ViT encoders have 1e-6
COSINE_EPS = 1e-8


class Mlp(nn.Module):
    """Two linear layers with a GELU between them and dropout before, between and after.

    Args:
        dim: Width D of input and output.
        dropout: One rate for all three places.
        ratio: Hidden width as a multiple of D.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``."""
        hidden = self.drop(F.gelu(self.fc1(self.drop(tokens))))
        out: Tensor = self.drop(self.fc2(hidden))
        return out


class LinearAttention(nn.Module):
    """Self-attention with the kernel elu + 1 in place of softmax, linear in the number of tokens.

    Args:
        dim: Width D.
        heads: Number of heads, a divisor of D.

    Source:
        Dinomaly's linear attention: no scale, no constant in the denominator.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``."""
        batch, count, dim = tokens.shape
        qkv: Tensor = self.qkv(tokens)
        # Sums over all tokens, and elu + 1 near zero, need more digits than half precision has.
        with torch.autocast(tokens.device.type, enabled=False):
            heads = qkv.float().view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            # Copied once here, not by each product; taken apart so that gradients join once.
            query, key, value = heads.contiguous().unbind()
            query, key = F.elu(query) + 1.0, F.elu(key) + 1.0
            summary = key.transpose(-2, -1) @ value
            weight = query @ key.sum(dim=-2).unsqueeze(-1)
            # The kernel rounds to 0 for entries under about -17; 0 / 0 would follow.
            mixed = (query @ summary) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
            mixed = mixed.transpose(1, 2).reshape(batch, count, dim)
        out: Tensor = self.proj(mixed.to(qkv.dtype))
        return out


class PreNormBlock(nn.Module):
    """The parts of a block with a norm before its attention and another before its MLP.

    Args:
        dim: Width D.
        attention: The attention.
    """

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim)


class TransformerBlock(PreNormBlock):
    """Pre-norm block: x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        dim: Width D.
        attention: Maps ``[B, T, D]`` to ``[B, T, D]``.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``[B, T, D]`` to ``[B, T, D]``."""
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


def init_weights(module: nn.Module) -> None:
    """Draw the weights of all linear layers from torch's global generator; norms become 1 and 0.

    Source:
        The reference: normal with deviation 0.01 cut at 0.03, biases 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.03, b=0.03)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()


def cosine_distance(targets: Tensor, reconstructions: Tensor) -> Tensor:
    """Compare two sets of vectors.

    Args:
        targets: ``[..., D]``.
        reconstructions: ``[..., D]``.

    Returns:
        ``[...]`` 1 - cosine in [0, 2], in float32; higher = more anomalous.
    """
    targets, reconstructions = targets.float(), reconstructions.float()
    dots = (targets * reconstructions).sum(-1)
    similarity = _cosine(dots, targets.square().sum(-1), reconstructions.square().sum(-1))
    # Rounding can take a cosine a little over 1; maps are never negative.
    return (1.0 - similarity).clamp_min(0.0)


def flat_cosine_loss(
    targets: Tensor, reconstructions: Tensor, factors: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compare whole feature maps by one cosine each, with the gradient weighted by location.

    Args:
        targets: ``[B, G, P, D]``; no gradient reaches them.
        reconstructions: ``[B, G, P, D]``.
        factors: Maps the cosine distances of all locations ``[B, G, P]`` to what the gradient
            there is multiplied by. The value of the loss does not depend on it.

    Returns:
        A scalar in [0, 2]: 1 - cosine of the ``P * D`` vectors, mean over images and groups.

    Source:
        The reference's global cosine losses with hard mining (Dinomaly) and adaptive weights
        (INP-Former).
    """
    targets, reconstructions = targets.detach().float(), reconstructions.float()
    dots = (targets * reconstructions).sum(-1)
    lengths = reconstructions.square().sum(-1)
    target_lengths = targets.square().sum(-1)
    with torch.no_grad():
        factor = factors(1.0 - _cosine(dots, target_lengths, lengths))
    # A location's features reach the loss only through these two sums.
    dots, lengths = scale_gradient(dots, factor), scale_gradient(lengths, factor)
    return (1.0 - _cosine(dots.sum(-1), target_lengths.sum(-1), lengths.sum(-1))).mean()


def scale_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """Return the values unchanged; their gradient is multiplied by the factor."""
    fixed = values.detach()
    return fixed + (values - fixed) * factor


def _cosine(dots: Tensor, squares: Tensor, others: Tensor) -> Tensor:
    """Return cosines from inner products and squared lengths."""
    floor = COSINE_EPS**2
    return dots / (squares.clamp_min(floor).sqrt() * others.clamp_min(floor).sqrt())
