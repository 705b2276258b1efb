"""Decoder blocks and the loss that reconstruction detectors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Dropout",
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
_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn in 16-bit integers on a CPU, where torch's costs twice the time.

    The rate is rounded to a multiple of 2^-16 there. Draws come from torch's global generator.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return values of which each is dropped by chance; the others grow to keep the mean."""
        dropped = round(self.p * _LEVELS)
        plain = input.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or dropped == 0 or plain or dropped == _LEVELS:
            return F.dropout(input, self.p, training=self.training)
        count = input.numel()
        drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=input.device)
        drawn.random_(-(2**63), None)
        levels = drawn.view(torch.int16)[:count].view(input.shape)
        factors = torch.empty_like(input)
        torch.ge(levels, dropped - _LEVELS // 2, out=factors)  # as 0 and 1
        return input * factors.mul_(_LEVELS / (_LEVELS - dropped))


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
        self.drop = Dropout(dropout)

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
            query, key = _positive(query), _positive(key)
            summary = key.transpose(-2, -1) @ value
            weight = query @ key.sum(dim=-2).unsqueeze(-1)
            # The kernel rounds to 0 for entries under about -17; 0 / 0 would follow.
            share = weight.clamp_min(torch.finfo(weight.dtype).tiny).reciprocal()
            mixed = (query @ summary) * share
            mixed = mixed.transpose(1, 2).reshape(batch, count, dim)
        out: Tensor = self.proj(mixed.to(qkv.dtype))
        return out


def _positive(values: Tensor) -> Tensor:
    """Return elu + 1: exp(x) below 0, x + 1 above."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return F.elu(values) + 1.0
    # torch's elu and its gradient are slow on a CPU.
    if values.requires_grad:
        out: Tensor = _Positive.apply(values)
        return out
    return values.clamp_max(0.0).exp_().add_(values.clamp_min(0.0))


class _Positive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        out = _positive(values.detach())
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out: Tensor = ctx.saved_tensors[0]
        return out.clamp_max(1.0) * gradient  # the slope below 0 is the value


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
    similarity = _cosine(dots, _squared_length(targets), _squared_length(reconstructions))
    # Rounding can take a cosine a little over 1; maps are never negative.
    return (1.0 - similarity).clamp_min(0.0)


def flat_cosine_loss(
    targets: Sequence[Tensor],
    reconstructions: Sequence[Tensor],
    factors: Callable[[Tensor], Tensor],
    *,
    patches: int,
) -> Tensor:
    """Compare whole feature maps by one cosine each, with the gradient weighted by location.

    Args:
        targets: For each of G groups ``[B, T, D]``, T = prefix tokens + patches, each group with a
            width D of its own; no gradient reaches them.
        reconstructions: The same.
        factors: Maps the cosine distances of all locations ``[B, G, P]`` to what the gradient
            there is multiplied by. The value of the loss does not depend on it.
        patches: P; tokens before the last P do not count.

    Returns:
        A scalar in [0, 2]: 1 - cosine of the ``P * D`` vectors, mean over images and groups.

    Source:
        The reference's global cosine losses with hard mining (Dinomaly) and adaptive weights
        (INP-Former).
    """
    dots, target_lengths, lengths = _sums(targets, reconstructions, patches)
    with torch.no_grad():
        factor = factors(1.0 - _cosine(dots, target_lengths, lengths))
    # A location's features reach the loss only through these two sums.
    dots, lengths = scale_gradient(dots, factor), scale_gradient(lengths, factor)
    return (1.0 - _cosine(dots.sum(-1), target_lengths.sum(-1), lengths.sum(-1))).mean()


def _sums(
    targets: Sequence[Tensor], reconstructions: Sequence[Tensor], patches: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``[B, G, P]`` inner products and squared lengths.

    Tokens are left out of these small tensors, not of the large ones, which would be copied.
    """
    found: tuple[list[Tensor], ...] = ([], [], [])
    for target, rebuilt in zip(targets, reconstructions, strict=True):
        target, rebuilt = target.detach().float(), rebuilt.float()
        found[0].append((target * rebuilt).sum(-1))
        found[1].append(_squared_length(target))
        found[2].append(_squared_length(rebuilt))
    dots, target_lengths, lengths = (torch.stack(each, dim=1)[..., -patches:] for each in found)
    return dots, target_lengths, lengths


def _squared_length(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return lengths.square()


def scale_gradient(values: Tensor, factor: Tensor) -> Tensor:
    """Return the values unchanged; their gradient is multiplied by the factor."""
    fixed = values.detach()
    return fixed + (values - fixed) * factor


def _cosine(dots: Tensor, squares: Tensor, others: Tensor) -> Tensor:
    """Return cosines from inner products and squared lengths."""
    floor = COSINE_EPS**2
    return dots / (squares.clamp_min(floor).sqrt() * others.clamp_min(floor).sqrt())
