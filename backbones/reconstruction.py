"""What detectors share that rebuild a frozen ViT's features and compare the two by cosine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.layers import cosine_distance, flat_cosine_loss
from meds_plugin.encoder import require_vit
from meds_plugin.encoder_weights import check_state_dict
from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from meds_plugin.frozen_encoder import FrozenEncoder

__all__ = ["ReconstructionDetector"]

ENCODER_PREFIX = "encoder."


class ReconstructionDetector(nn.Module):
    """A frozen encoder whose target blocks are fused in G groups, and a decoder that rebuilds them.

    A detector adds what it trains, `bottleneck` and `decoder` among it, and says in `rebuild` how
    tokens pass through. The last decoder blocks rebuild the first group.

    Args:
        encoder: The frozen encoder, a vision transformer; T = prefix + P tokens, patch grid h x w.
        backbone: The detector's name, for messages.
        decoder_depth: Decoder blocks; default: as many as target blocks.
        groups: Positions among the target blocks, each in exactly one group; default: two halves.
        heads: Attention heads of the decoder; default: the encoder's.
        keep_prefix: Whether the encoder's prefix tokens go through the decoder too.

    Raises:
        UserError: If the arguments do not fit each other or the encoder.
    """

    bottleneck: nn.ModuleList
    decoder: nn.ModuleList

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        backbone: str,
        decoder_depth: int | None,
        groups: Sequence[Sequence[int]] | None,
        heads: int | None,
        keep_prefix: bool,
    ) -> None:
        super().__init__()
        encoder = require_vit(encoder, backbone=backbone)
        targets = len(encoder.layers)
        self.depth = targets if decoder_depth is None else decoder_depth
        self.heads = encoder.heads if heads is None else heads
        self.groups = _halves(targets) if groups is None else tuple(tuple(g) for g in groups)
        _check(self.groups, targets, depth=self.depth, heads=self.heads, dim=encoder.dim)
        self.decoder_groups = (
            self.groups if self.depth == targets else _near_equal(self.depth, len(self.groups))
        )
        self.encoder, self.dim = encoder, encoder.dim
        self._dropped_tokens = 0 if keep_prefix else encoder.prefix_tokens
        self._patch_count = math.prod(encoder.grid)
        self._group_weights: Tensor
        weights = torch.tensor([len(group) / targets for group in self.groups])
        self.register_buffer("_group_weights", weights.view(1, -1, 1, 1), persistent=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images it takes, in pixels: the encoder's."""
        return self.encoder.image_size

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the detector trains; the encoder stays frozen."""
        super().requires_grad_(requires_grad)
        self.encoder.requires_grad_(requires_grad=False)
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Return all that training needs of the images.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it expects.

        Returns:
            ``[B, G, T, D]`` mean target tokens of each group, no gradient; prefix tokens, where
            they are kept, stand first.
        """
        return self._fuse_groups(self.encoder.block_tokens(images))

    def rebuild(self, encoded: Tensor) -> list[Tensor]:
        """Return for each group rebuilt tokens ``[B, T, D]`` of ``[B, G, T, D]`` from `encode`."""
        raise NotImplementedError

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        """Return ``[B, h, w]`` in [0, 2], higher = more anomalous: mean over groups of 1 - cosine.

        Args:
            encoded: ``[B, G, T, D]`` from `encode`.
        """
        pairs = zip(encoded.unbind(dim=1), self.rebuild(encoded), strict=True)
        distances = torch.stack([cosine_distance(*pair) for pair in pairs]).mean(dim=0)
        return self.patches(distances.unsqueeze(-1)).reshape(-1, *self.encoder.grid)

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` of the encoder (see `ViTEncoder.features`)."""
        return self.encoder.features(images)

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `encode` and `features` do, from one pass through the encoder."""
        tokens, features = self.encoder.tokens_and_features(images)
        return self._fuse_groups(tokens), features

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
        return self._on_grid(encoded.unbind(dim=1)), self._on_grid(self.rebuild(encoded))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters but the encoder's as one group."""
        named = self.named_parameters()
        return [{"params": [p for name, p in named if not name.startswith(ENCODER_PREFIX)]}]

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            state_dict: Everything that is trained; where it also has ``encoder.*`` (official
                DINOv2 names, positions of any square grid), the encoder's weights too.

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

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the patch tokens ``[B, P, D]`` of ``[B, T, D]``."""
        return tokens[:, -self._patch_count :]

    def fuse(self, encoded: Tensor) -> Tensor:
        """Return the mean over all target blocks, ``[B, T, D]``, of ``[B, G, T, D]``."""
        fused = (encoded * self._group_weights).sum(dim=1)
        return fused.to(self._group_weights.dtype)

    def cosine_loss(
        self, encoded: Tensor, rebuilt: Sequence[Tensor], factors: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the loss of rebuilt tokens, of their patches only (see `flat_cosine_loss`).

        Args:
            encoded: ``[B, G, T, D]`` from `encode`.
            rebuilt: For each group ``[B, T, D]``.
            factors: Of the gradient, from ``[B, G, P]`` distances.
        """
        return flat_cosine_loss(encoded.unbind(dim=1), rebuilt, factors, patches=self._patch_count)

    def decode(self, tokens: Tensor, *context: Tensor) -> list[Tensor]:
        """Run the bottleneck and the decoder.

        Args:
            tokens: ``[B, T, D]``.
            context: What every decoder block takes beside the tokens.

        Returns:
            For each group ``[B, T, D]``: the mean output of its decoder blocks.
        """
        for layer in self.bottleneck:
            tokens = layer(tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens, *context)
            outputs.append(tokens)
        outputs.reverse()
        return [_mean(outputs, group) for group in self.decoder_groups]

    def _fuse_groups(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return ``[B, G, T, D]`` of the target blocks' outputs."""
        kept = [each[:, self._dropped_tokens :] for each in tokens]
        return torch.stack([_mean(kept, group) for group in self.groups], dim=1)

    def _on_grid(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Lay the patches among ``[B, T, D]`` out on the grid, for each group ``[B, D, h, w]``."""
        columns = [self.patches(group).mT for group in tokens]
        return [each.reshape(*each.shape[:2], *self.encoder.grid) for each in columns]


def _mean(tokens: Sequence[Tensor], members: Sequence[int]) -> Tensor:
    total = tokens[members[0]]
    for index in members[1:]:
        total = total + tokens[index]
    return total / len(members) if len(members) > 1 else total


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
