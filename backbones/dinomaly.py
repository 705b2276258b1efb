"""Dinomaly: a decoder with linear attention rebuilds the features of a frozen ViT.

Source: Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly
Detection", CVPR 2025, in the variant that the MeDS reference trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.layers import (
    LinearAttention,
    Mlp,
    TransformerBlock,
    cosine_distance,
    flat_cosine_loss,
    init_weights,
)
from meds_plugin.encoder_weights import check_state_dict
from meds_plugin.errors import UserError
from meds_plugin.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from meds_plugin.encoder import ViTEncoder

__all__ = ["Dinomaly", "hard_mining_factors"]

ENCODER_PREFIX = "encoder."


class Dinomaly(nn.Module):
    """The detector; its map is 1 - cosine between the encoder's features and their rebuilt form.

    Target blocks are fused in G groups; the last decoder blocks rebuild the first group.

    Args:
        encoder: The frozen encoder; T = prefix + P tokens, patch grid h x w.
        decoder_depth: Decoder blocks; default: as many as target blocks.
        groups: Positions among the target blocks, each in exactly one group; default: two halves.
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
        encoder: ViTEncoder,
        *,
        decoder_depth: int | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.2,
        hard_mining: float = 0.5,
        hard_mining_factor: float = 0.1,
        hard_mining_steps: int = 1000,
        heads: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        targets = len(encoder.layers)
        depth = targets if decoder_depth is None else decoder_depth
        heads = encoder.heads if heads is None else heads
        self.groups = _halves(targets) if groups is None else tuple(tuple(g) for g in groups)
        _check(self.groups, targets, depth=depth, heads=heads, dim=encoder.dim)
        _check_shares(dropout=dropout, hard_mining=hard_mining)
        self.decoder_groups = (
            self.groups if depth == targets else _near_equal(depth, len(self.groups))
        )
        self.hard_mining = hard_mining
        self.hard_mining_factor = hard_mining_factor
        self.hard_mining_steps = hard_mining_steps
        self.encoder = encoder
        with torch_seeded(seed, "dinomaly", "weights"):
            self.bottleneck = nn.ModuleList([Mlp(encoder.dim, dropout=dropout)])
            self.decoder = nn.ModuleList(
                TransformerBlock(encoder.dim, LinearAttention(encoder.dim, heads))
                for _ in range(depth)
            )
            init_weights(self.bottleneck)
            init_weights(self.decoder)
        self._group_weights: Tensor
        weights = torch.tensor([len(group) / targets for group in self.groups])
        self.register_buffer("_group_weights", weights.view(1, -1, 1, 1), persistent=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images it takes, in pixels: the encoder's."""
        return self.encoder.image_size

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the decoder trains; the encoder stays frozen."""
        super().requires_grad_(requires_grad)
        self.encoder.requires_grad_(requires_grad=False)
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return all that training needs of the images.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it expects.

        Returns:
            ``[B, G, T, D]`` mean target tokens of each group, prefix tokens first, no gradient.
        """
        tokens = self.encoder.block_tokens(images)
        return torch.stack([_mean(tokens, group) for group in self.groups], dim=1)

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        """Return ``[B, h, w]`` in [0, 2], higher = more anomalous: mean over groups of 1 - cosine.

        Args:
            encoded: ``[B, G, T, D]`` from `encode`.
        """
        distances = cosine_distance(self._targets(encoded), self._rebuild(encoded))
        return distances.mean(dim=1).view(-1, *self.encoder.grid)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return Dinomaly's own loss, a scalar: one cosine an image and group, with hard mining.

        Args:
            encoded: ``[B, G, T, D]`` from `encode`.
            step: Steps made in the stage; sets how many locations count as easy.
            total_steps: Not used: the share rises over `hard_mining_steps`, however long the stage.
        """
        del total_steps
        share = self.hard_mining
        if step < self.hard_mining_steps:
            share = self.hard_mining * step / self.hard_mining_steps
        return flat_cosine_loss(
            self._targets(encoded),
            self._rebuild(encoded),
            lambda distances: hard_mining_factors(distances, share, self.hard_mining_factor),
        )

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` of the encoder (see `ViTEncoder.features`)."""
        return self.encoder.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[B, 3, H, W]`` images to ``[B, h, w]`` maps, higher = more anomalous."""
        return self.anomaly_map(self.encode(images))

    def reconstruct(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the encoder's features and their rebuilt form.

        Args:
            images: ``[B, 3, H, W]``.

        Returns:
            Targets and reconstructions, for each group ``[B, D, h, w]``.
        """
        encoded = self.encode(images)
        return self._maps(self._targets(encoded)), self._maps(self._rebuild(encoded))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the bottleneck's and decoder's parameters as one group."""
        return [{"params": [*self.bottleneck.parameters(), *self.decoder.parameters()]}]

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            state_dict: ``bottleneck.0.*`` and ``decoder.N.*``; where it also has ``encoder.*``
                (official DINOv2 names, positions of any square grid), the encoder's weights too.

        Raises:
            UserError: If names or shapes differ from this model's; nothing is changed then.
        """
        source = "the reference checkpoint"
        own = {k: v for k, v in self.state_dict().items() if not k.startswith(ENCODER_PREFIX)}
        given = {k: v for k, v in state_dict.items() if not k.startswith(ENCODER_PREFIX)}
        encoder = {
            k.removeprefix(ENCODER_PREFIX): v
            for k, v in state_dict.items()
            if k.startswith(ENCODER_PREFIX)
        }
        check_state_dict(given, own, source=source)
        if encoder:
            self.encoder.load_weights(encoder, source=f"{source}'s encoder")
        self.load_state_dict(given, strict=False)

    def _targets(self, encoded: Tensor) -> Tensor:
        """Return the targets' patch tokens ``[B, G, P, D]``."""
        return encoded[:, :, self.encoder.prefix_tokens :]

    def _maps(self, tokens: Tensor) -> list[Tensor]:
        """Lay the patches ``[B, G, P, D]`` out on the grid, for each group ``[B, D, h, w]``."""
        return [
            group.mT.reshape(*group.mT.shape[:2], *self.encoder.grid) for group in tokens.unbind(1)
        ]

    def _rebuild(self, encoded: Tensor) -> Tensor:
        """Return the rebuilt patch tokens ``[B, G, P, D]``."""
        fused = (encoded * self._group_weights).sum(dim=1)  # mean over all target blocks
        tokens = fused.to(self._group_weights.dtype)
        for layer in self.bottleneck:
            tokens = layer(tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens)
            outputs.append(tokens)
        outputs.reverse()
        rebuilt = torch.stack([_mean(outputs, group) for group in self.decoder_groups], dim=1)
        return self._targets(rebuilt)


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


def _mean(tokens: Sequence[Tensor], members: Sequence[int]) -> Tensor:
    return torch.stack([tokens[index] for index in members]).mean(dim=0)


def _halves(count: int) -> tuple[tuple[int, ...], ...]:
    return _near_equal(count, min(2, count))


def _near_equal(count: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """Split 0..count-1 into consecutive parts whose sizes differ by one at most."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return tuple(tuple(range(bounds[i], bounds[i + 1])) for i in range(parts))


def _check(
    groups: Sequence[Sequence[int]], targets: int, *, depth: int, heads: int, dim: int
) -> None:
    if sorted(index for group in groups for index in group) != list(range(targets)) or not all(
        groups
    ):
        msg = (
            f"backbone.detector.groups={[list(group) for group in groups]} must hold each of "
            f"0..{targets - 1} once: the encoder has {targets} target blocks (encoder.layers)"
        )
        raise UserError(msg)
    if depth < len(groups):
        msg = f"backbone.detector.decoder_depth={depth} must be at least {len(groups)}, one a group"
        raise UserError(msg)
    if heads < 1 or dim % heads:
        msg = f"backbone.detector.heads={heads} must divide the encoder's width {dim}"
        raise UserError(msg)


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            msg = f"backbone.detector.{name} must be in [0, 1], got {share}"
            raise UserError(msg)
