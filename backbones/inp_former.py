"""INP-Former: a decoder that may use only a few prototypes of the image's own normal patches.

Source: Luo et al., "Exploring Intrinsic Normal Prototypes within a Single Image for Universal
Anomaly Detection", CVPR 2025, as the MeDS reference trains it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.shared.arguments import check_counts
from backbones.shared.layers import Mlp, PreNormBlock, init_weights
from backbones.shared.reconstruction import ReconstructionDetector
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = [
    "AggregationBlock",
    "INPFormer",
    "PrototypeBlock",
    "adaptive_factors",
    "prototype_distances",
]


class INPFormer(ReconstructionDetector):
    """The detector; its map is 1 - cosine between the encoder's features and a reconstruction.

    K learned prototypes attend to the image's patches and become prototypes of that image. Decoder
    blocks express every patch as a mixture of them, so that what is rare in the image is lost.
    Targets are fused into G groups (see `ReconstructionDetector`); the last decoder blocks
    reconstruct the first group.

    Args:
        encoder: The frozen encoder; P patches on a grid h x w. Its prefix tokens are not used.
        decoder_depth: Decoder blocks; default: as many as targets.
        groups: Positions among the targets, each in exactly one group; default: the encoder's.
        width: Width D of the decoder; default: that of its input.
        prototypes: Number K of prototypes.
        gather_weight: Weight of the loss that pulls prototypes towards the image's patches.
        mining_power: Exponent of a location's relative distance in the factor of its gradient; 0
            treats all locations alike.
        heads: Attention heads; default: the encoder's.
        seed: For the initial weights.

    Raises:
        UserError: If the arguments are out of range, or do not fit each other or the encoder.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        decoder_depth: int | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        width: int | None = None,
        prototypes: int = 6,
        gather_weight: float = 0.2,
        mining_power: float = 3.0,
        heads: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            name="inp_former",
            decoder_depth=decoder_depth,
            groups=groups,
            width=width,
            heads=heads,
            use_prefix=False,
            seed=seed,
        )
        check_counts(prototypes=prototypes)
        _check_weights(gather_weight=gather_weight, mining_power=mining_power)
        self.gather_weight = gather_weight
        self.mining_power = mining_power
        dim = self.dim
        with torch_seeded(seed, "inp_former", "weights"):
            # The authors' names, so that their checkpoints fit.
            self.prototype_token = nn.Parameter(torch.randn(prototypes, dim))
            self.bottleneck = nn.ModuleList([Mlp(dim)])
            self.aggregation = nn.ModuleList([AggregationBlock(dim, self.heads)])
            self.decoder = nn.ModuleList(PrototypeBlock(dim, self.heads) for _ in range(self.depth))
            init_weights(self.bottleneck)
            init_weights(self.aggregation)
            init_weights(self.decoder)

    def reconstructions(self, encoded: Tensor) -> list[Tensor]:
        """Return each group's reconstruction ``[B, P, W_g]`` of ``[B, P, W]`` from `encode`."""
        tokens = self.fuse(encoded)
        return self.decode(tokens, self.gather(tokens))

    def gather(self, tokens: Tensor) -> Tensor:
        """Return the images' prototypes ``[B, K, D]`` from their patches ``[B, P, D]``."""
        prototypes = self.prototype_token.expand(tokens.shape[0], -1, -1)
        for block in self.aggregation:
            prototypes = block(prototypes, tokens)
        return prototypes

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return INP-Former's own loss, a scalar: one cosine per image and group, plus gathering.

        Args:
            encoded: ``[B, P, W]`` from `encode`.
            step: Not used: the loss is the same throughout.
            total_steps: Not used.
        """
        del step, total_steps
        tokens = self.fuse(encoded)
        prototypes = self.gather(tokens)
        cosine = self.cosine_loss(
            encoded,
            self.decode(tokens, prototypes),
            lambda distances: adaptive_factors(distances, self.mining_power),
        )
        distances, _ = prototype_distances(tokens, prototypes)
        return cosine + self.gather_weight * distances.mean()


class AggregationBlock(PreNormBlock):
    """Prototypes attend to the patches of an image; both pass the same norm first.

    Args:
        dim: Width D.
        heads: Number of heads, a divisor of D.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, _SoftmaxAttention(dim, heads))

    def forward(self, prototypes: Tensor, tokens: Tensor) -> Tensor:
        """Map ``[B, K, D]`` prototypes and ``[B, P, D]`` patches to ``[B, K, D]``."""
        prototypes = prototypes + self.attn(self.norm1(prototypes), self.norm1(tokens))
        out: Tensor = prototypes + self.mlp(self.norm2(prototypes))
        return out


class PrototypeBlock(PreNormBlock):
    """Patches are replaced by mixtures of prototypes; both pass the same norm first.

    There is no residual connection around the attention, only around the MLP after it.

    Args:
        dim: Width D.
        heads: Number of heads, a divisor of D.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, _CosineAttention(dim, heads))

    def forward(self, tokens: Tensor, prototypes: Tensor) -> Tensor:
        """Map ``[B, P, D]`` patches and ``[B, K, D]`` prototypes to ``[B, P, D]``."""
        tokens = self.attn(self.norm1(tokens), self.norm1(prototypes))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class _CrossAttention(nn.Module):
    """Projections of attention from one set of tokens to another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """Map tokens ``[B, T, D]`` that attend to others ``[B, S, D]`` to ``[B, T, D]``."""
        query = self.q(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(others).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(self.mix(query, key, value).transpose(1, 2).flatten(2))
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map queries ``[B, heads, T, d]``, given S keys and S values, to the same shape."""
        raise NotImplementedError


class _SoftmaxAttention(_CrossAttention):
    """Ordinary attention, scaled by the square root of a head's width."""

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class _CosineAttention(_CrossAttention):
    """Weights are positive cosines, scaled by one learned number per head; they do not sum to 1."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.learn_scale = nn.Parameter(torch.ones(heads, 1, 1))

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # Queries are many: dividing the few products by their lengths is cheaper than scaling them.
        key = F.normalize(key, dim=-1) * self.learn_scale
        lengths = query.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return F.relu(query @ key.mT / lengths) @ value


def prototype_distances(tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Compare patches with the nearest of their image's prototypes.

    Args:
        tokens: ``[B, P, D]``.
        prototypes: ``[B, K, D]``.

    Returns:
        ``[B, P]`` 1 - cosine in [0, 2], in float32, and ``[B, P]`` indices of the nearest. The mean
        distance is the reference's gather (coherence) loss.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        unit = F.normalize(tokens.float(), dim=-1)
        cosine, index = (unit @ F.normalize(prototypes.float(), dim=-1).mT).max(dim=-1)
    return 1.0 - cosine, index


def adaptive_factors(distances: Tensor, power: float) -> Tensor:
    """Weight each location's gradient by how hard it is.

    Args:
        distances: ``[B, G, P]`` cosine distance of every location.
        power: Exponent of the distance over its mean in the batch, for each group on its own.

    Returns:
        ``[B, G, P]`` factors >= 0.

    Source:
        INP-Former's adaptive hard-mining loss.
    """
    distances = distances.clamp_min(0.0)
    mean = distances.mean(dim=(0, 2), keepdim=True)
    # Where reconstruction is perfect, there is no gradient to weight.
    return (distances / mean.clamp_min(torch.finfo(mean.dtype).tiny)) ** power


def _check_weights(**weights: object) -> None:
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0.0 <= weight < math.inf:
            msg = f"backbone.detector.{name} must be a number of at least 0, got {weight}"
            raise UserError(msg)
