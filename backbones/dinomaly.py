"""Dinomaly: a decoder with linear attention reconstructs the features of a frozen encoder.

Source: Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly
Detection", CVPR 2025, in the variant that the MeDS reference trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.shared.layers import Mlp, PreNormBlock, init_weights
from backbones.shared.reconstruction import ReconstructionDetector
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["Dinomaly", "LinearAttention", "TransformerBlock", "hard_mining_factors"]

EASY_FACTOR = 0.1


class Dinomaly(ReconstructionDetector):
    """The detector; its map is 1 - cosine between the encoder's features and a reconstruction.

    Targets are fused into G groups (see `ReconstructionDetector`); the last decoder blocks
    reconstruct the first group. Class and register tokens, where there are any, are reconstructed
    too, but do not count.

    Args:
        encoder: The frozen encoder; T = prefix + P tokens, patch grid h x w.
        decoder_depth: Decoder blocks; default: as many as targets.
        groups: Positions among the targets, each in exactly one group; default: the encoder's.
        width: Width of the decoder; default: that of its input.
        dropout: Rate in the bottleneck, which makes reconstruction hard; the original uses 0.4 for
            Real-IAD.
        hard_mining: Final share of easy locations, whose gradient is damped; 0.9 in the original.
        hard_mining_steps: Steps over which the share rises from 0.
        heads: Attention heads of the decoder; default: the encoder's.
        seed: For the initial weights.

    Raises:
        UserError: If the arguments do not fit each other or the encoder.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        decoder_depth: int | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        width: int | None = None,
        dropout: float = 0.2,
        hard_mining: float = 0.5,
        hard_mining_steps: int = 1000,
        heads: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            name="dinomaly",
            decoder_depth=decoder_depth,
            groups=groups,
            width=width,
            heads=heads,
            use_prefix=True,
            seed=seed,
        )
        _check_shares(dropout=dropout, hard_mining=hard_mining)
        self.hard_mining = hard_mining
        self.hard_mining_steps = hard_mining_steps
        with torch_seeded(seed, "dinomaly", "weights"):
            self.bottleneck = nn.ModuleList([Mlp(self.dim, dropout=dropout)])
            self.decoder = nn.ModuleList(
                TransformerBlock(self.dim, LinearAttention(self.dim, self.heads))
                for _ in range(self.depth)
            )
            init_weights(self.bottleneck)
            init_weights(self.decoder)

    def reconstructions(self, encoded: Tensor) -> list[Tensor]:
        """Return each group's reconstruction ``[B, T, W_g]`` of ``[B, T, W]`` from `encode`."""
        return self.decode(self.fuse(encoded))

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return Dinomaly's own loss, a scalar: one cosine per image and group, with hard mining.

        Args:
            encoded: ``[B, T, W]`` from `encode`.
            step: Steps made in the stage; sets how many locations count as easy.
            total_steps: Not used: the share rises over `hard_mining_steps`, however long the stage.
        """
        del total_steps
        share = self.hard_mining
        if step < self.hard_mining_steps:
            share = self.hard_mining * step / self.hard_mining_steps
        return self.cosine_loss(
            encoded,
            self.reconstructions(encoded),
            lambda distances: hard_mining_factors(distances, share),
        )


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
            # Copied once here instead of in each product; unbound so that gradients join once.
            query, key, value = heads.contiguous().unbind()
            query, key = _positive(query), _positive(key)
            summary = key.transpose(-2, -1) @ value
            weight = query @ key.sum(dim=-2).unsqueeze(-1)
            # The kernel underflows to 0 for entries below about -17; 0 / 0 would follow.
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


def hard_mining_factors(distances: Tensor, share: float) -> Tensor:
    """Damp the gradient of easy locations.

    Args:
        distances: ``[B, G, P]`` cosine distance of every location.
        share: Share of easy locations in [0, 1], over the batch, for each group on its own; the
            hardest location of a group always counts as hard.

    Returns:
        ``[B, G, P]`` factors of the gradients: 0.1 where easy, 1 elsewhere.

    Source:
        Dinomaly's hard-mining loss; its strict comparison with the k-th largest distance.
    """
    ascending = distances.transpose(0, 1).flatten(1).sort(dim=1).values
    count = ascending.shape[1]
    hard = max(1, int(count * (1.0 - share)))
    threshold = ascending[:, count - hard].view(1, -1, 1)
    return torch.where(distances < threshold, EASY_FACTOR, 1.0)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            msg = f"backbone.detector.{name} must be in [0, 1], got {share}"
            raise UserError(msg)
