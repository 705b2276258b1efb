"""Dinomaly: a decoder with linear attention rebuilds the features of a frozen encoder.

Source: Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly
Detection", CVPR 2025, in the variant that the MeDS reference trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backbones.layers import (
    LinearAttention,
    Mlp,
    TransformerBlock,
    init_weights,
)
from backbones.reconstruction import ReconstructionDetector
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["Dinomaly", "hard_mining_factors"]


class Dinomaly(ReconstructionDetector):
    """The detector; its map is 1 - cosine between the encoder's features and their rebuilt form.

    Targets are fused in G groups (see `ReconstructionDetector`); the last decoder blocks rebuild
    the first group. Class and register tokens, where there are any, are rebuilt too, but do not
    count.

    Args:
        encoder: The frozen encoder; T = prefix + P tokens, patch grid h x w.
        decoder_depth: Decoder blocks; default: as many as targets.
        groups: Positions among the targets, each in exactly one group; default: the encoder's.
        width: Width of the decoder; default: that of what it takes.
        dropout: Rate in the bottleneck, which makes rebuilding hard; the original uses 0.4 for
            Real-IAD.
        hard_mining: Final share of easy locations, whose gradient is damped; 0.9 in the original.
        hard_mining_factor: What their gradient is multiplied by.
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
        hard_mining_factor: float = 0.1,
        hard_mining_steps: int = 1000,
        heads: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            backbone="dinomaly",
            decoder_depth=decoder_depth,
            groups=groups,
            width=width,
            heads=heads,
            keep_prefix=True,
            seed=seed,
        )
        _check_shares(dropout=dropout, hard_mining=hard_mining)
        self.hard_mining = hard_mining
        self.hard_mining_factor = hard_mining_factor
        self.hard_mining_steps = hard_mining_steps
        with torch_seeded(seed, "dinomaly", "weights"):
            self.bottleneck = nn.ModuleList([Mlp(self.dim, dropout=dropout)])
            self.decoder = nn.ModuleList(
                TransformerBlock(self.dim, LinearAttention(self.dim, self.heads))
                for _ in range(self.depth)
            )
            init_weights(self.bottleneck)
            init_weights(self.decoder)

    def rebuild(self, encoded: Tensor) -> list[Tensor]:
        """Return the rebuilt groups, each ``[B, T, W_g]``, of ``[B, T, W]`` from `encode`."""
        return self.decode(self.fuse(encoded))

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return Dinomaly's own loss, a scalar: one cosine an image and group, with hard mining.

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
            self.rebuild(encoded),
            lambda distances: hard_mining_factors(distances, share, self.hard_mining_factor),
        )


def hard_mining_factors(distances: Tensor, share: float, factor: float) -> Tensor:
    """Damp the gradient of easy locations.

    Args:
        distances: ``[B, G, P]`` cosine distance of every location.
        share: Share of easy locations in [0, 1], over the batch, for each group on its own; the
            hardest location of a group always counts as hard.
        factor: What the gradient of easy locations is multiplied by.

    Returns:
        ``[B, G, P]`` of 1 and ``factor``.

    Source:
        Dinomaly's hard-mining loss; its strict comparison with the k-th largest distance.
    """
    ascending = distances.transpose(0, 1).flatten(1).sort(dim=1).values
    count = ascending.shape[1]
    hard = max(1, int(count * (1.0 - share)))
    threshold = ascending[:, count - hard].view(1, -1, 1)
    return torch.where(distances < threshold, factor, 1.0)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            msg = f"backbone.detector.{name} must be in [0, 1], got {share}"
            raise UserError(msg)
