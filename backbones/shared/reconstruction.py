"""What detectors share that reconstruct a frozen encoder's features and compare by cosine."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backbones.shared.arguments import check_counts
from backbones.shared.cosine import cosine_distance, flat_cosine_loss
from backbones.shared.encoder_detector import ENCODER_PREFIX, EncoderDetector
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["ReconstructionDetector"]


class ReconstructionDetector(EncoderDetector):
    """A frozen encoder whose targets are fused into G groups, and a decoder that reconstructs them.

    A subclass adds what trains, `bottleneck` and `decoder` among it, and says in `reconstructions`
    how tokens pass through. The last decoder blocks reconstruct the first group.

    Where the encoder's targets share one space, as blocks of a transformer do, a group is their
    mean, and the decoder takes the mean of all. For a pyramid, a group is its members' channels
    concatenated, and the decoder takes those of all. Linear layers lead to the decoder's width
    and from it to the groups', where these differ; by default, they do not for a transformer.

    Args:
        encoder: The frozen encoder; T = prefix + P tokens, patch grid h x w, L targets.
        name: The detector's name, a key of its random numbers.
        decoder_depth: Decoder blocks; default: as many as targets.
        groups: Positions among the targets, each in exactly one group; default: the encoder's.
        width: Width D of the decoder; default: that of its input.
        heads: Attention heads of the decoder; default: the encoder's.
        use_prefix: Whether the encoder's prefix tokens pass through the decoder too.
        seed: For the initial weights of the linear layers.

    Attributes:
        groups: As given.
        widths: Width of each group, W in total.

    Raises:
        UserError: If the arguments do not fit each other or the encoder.
    """

    bottleneck: nn.ModuleList
    decoder: nn.ModuleList

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        name: str,
        decoder_depth: int | None,
        groups: Sequence[Sequence[int]] | None,
        width: int | None,
        heads: int | None,
        use_prefix: bool,
        seed: int,
    ) -> None:
        super().__init__(encoder)
        targets = len(encoder.channels)
        self.depth = targets if decoder_depth is None else decoder_depth
        self.groups = encoder.groups if groups is None else tuple(tuple(g) for g in groups)
        _check_groups(self.groups, targets, depth=self.depth)
        self.widths = tuple(
            encoder.channels[0] if encoder.additive else sum(encoder.channels[i] for i in group)
            for group in self.groups
        )
        input_width = encoder.channels[0] if encoder.additive else sum(self.widths)
        self.dim = input_width if width is None else width
        self.heads = encoder.heads if heads is None else heads
        check_counts(width=self.dim)
        if self.heads < 1 or self.dim % self.heads:
            msg = f"backbone.detector.heads={self.heads} must divide the decoder's width {self.dim}"
            raise UserError(msg)
        self.decoder_groups = (
            self.groups if self.depth == targets else _near_equal(self.depth, len(self.groups))
        )
        self._skipped_tokens = 0 if use_prefix else encoder.prefix_tokens
        self._patch_count = math.prod(encoder.grid)
        self._shares = [len(group) / targets for group in self.groups]
        # Absent where widths agree: the authors' checkpoints know no such layers.
        different = any(each != self.dim for each in self.widths)
        with torch_seeded(seed, name, "projections"):
            self.embed = nn.ModuleList(
                [nn.Linear(input_width, self.dim)] if input_width != self.dim else []
            )
            self.output = nn.ModuleList(
                nn.Linear(self.dim, each) for each in (self.widths if different else ())
            )

    def encode(self, images: Tensor) -> Tensor:
        """Return all that training needs of the images.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it expects.

        Returns:
            ``[B, T, W]`` the groups' target tokens, their channels concatenated, without gradient;
            prefix tokens, where they are used, come first.
        """
        return self._fuse_groups(self.encoder.tokens(images))

    def reconstructions(self, encoded: Tensor) -> list[Tensor]:
        """Return each group's reconstruction ``[B, T, W_g]`` of ``[B, T, W]`` from `encode`."""
        raise NotImplementedError

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        """Return ``[B, h, w]`` maps of 1 - cosine, averaged over groups.

        Args:
            encoded: ``[B, T, W]`` from `encode`.

        Returns:
            Values in [0, 2], higher = more anomalous.
        """
        pairs = zip(self.targets(encoded), self.reconstructions(encoded), strict=True)
        distances = torch.stack([cosine_distance(*pair) for pair in pairs]).mean(dim=0)
        return self.patches(distances.unsqueeze(-1)).reshape(-1, *self.encoder.grid)

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results of `encode` and `features` from one pass through the encoder."""
        tokens, features = self.encoder.tokens_and_features(images)
        return self._fuse_groups(tokens), features

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[B, 3, H, W]`` images to ``[B, h, w]`` maps, higher = more anomalous."""
        return self.anomaly_map(self.encode(images))

    def reconstruct(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the encoder's features and their reconstructions.

        Args:
            images: ``[B, 3, H, W]``.

        Returns:
            Targets and reconstructions, for each group ``[B, W_g, h, w]``.
        """
        encoded = self.encode(images)
        return self._on_grid(self.targets(encoded)), self._on_grid(self.reconstructions(encoded))

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            state_dict: Everything that is trained; where it also has ``encoder.*`` (official
                DINOv2 names, positions of any square grid), the encoder's weights too.

        Raises:
            UserError: If names or shapes differ from this model's; nothing is changed then.
        """
        own = {k: v for k, v in state_dict.items() if not k.startswith(ENCODER_PREFIX)}
        encoder = {k.removeprefix(ENCODER_PREFIX): v for k, v in state_dict.items() if k not in own}
        self._load_reference(own, encoder)

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the patch tokens ``[B, P, ...]`` of ``[B, T, ...]``."""
        return tokens[:, -self._patch_count :]

    def targets(self, encoded: Tensor) -> tuple[Tensor, ...]:
        """Return the groups of ``[B, T, W]``, each ``[B, T, W_g]``."""
        groups: tuple[Tensor, ...] = encoded.split(self.widths, dim=-1)
        return groups

    def fuse(self, encoded: Tensor) -> Tensor:
        """Return the decoder's input ``[B, T, D]`` for ``[B, T, W]`` from `encode`.

        The mean of all targets, or their channels concatenated (see the class).
        """
        if self.encoder.additive:
            parts = zip(self.targets(encoded.float()), self._shares, strict=True)
            first, *others = [part * share for part, share in parts]
            tokens = sum(others, first)
        else:
            tokens = encoded.float()
        for layer in self.embed:
            tokens = layer(tokens)
        return tokens

    def cosine_loss(
        self,
        encoded: Tensor,
        reconstructions: Sequence[Tensor],
        factors: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return the loss of the reconstructed patches (see `flat_cosine_loss`).

        Args:
            encoded: ``[B, T, W]`` from `encode`.
            reconstructions: For each group ``[B, T, W_g]``.
            factors: Maps ``[B, G, P]`` distances to the factors of their gradients.
        """
        targets = self.targets(encoded)
        return flat_cosine_loss(targets, reconstructions, factors, patches=self._patch_count)

    def decode(self, tokens: Tensor, *context: Tensor) -> list[Tensor]:
        """Run the bottleneck and the decoder.

        Args:
            tokens: ``[B, T, D]``.
            context: What every decoder block takes besides the tokens.

        Returns:
            For each group ``[B, T, W_g]``: the mean output of its decoder blocks, projected to the
            group's width.
        """
        for layer in self.bottleneck:
            tokens = layer(tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens, *context)
            outputs.append(tokens)
        outputs.reverse()
        decoded = [_mean(outputs, group) for group in self.decoder_groups]
        if not len(self.output):
            return decoded
        return [layer(each) for layer, each in zip(self.output, decoded, strict=True)]

    def _fuse_groups(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return ``[B, T, W]`` of the encoder's targets."""
        used = [each[:, self._skipped_tokens :] for each in tokens]
        if not self.encoder.additive:
            return torch.cat([used[place] for group in self.groups for place in group], dim=-1)
        return torch.cat([_mean(used, group) for group in self.groups], dim=-1)

    def _on_grid(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Return the patches of each group's ``[B, T, D]`` as ``[B, D, h, w]``."""
        columns = [self.patches(group).mT for group in tokens]
        return [each.reshape(*each.shape[:2], *self.encoder.grid) for each in columns]


def _mean(tokens: Sequence[Tensor], members: Sequence[int]) -> Tensor:
    total = tokens[members[0]]
    for index in members[1:]:
        total = total + tokens[index]
    return total / len(members) if len(members) > 1 else total


def _near_equal(count: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """Split 0..count-1 into consecutive parts whose sizes differ by at most one."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return tuple(tuple(range(*pair)) for pair in pairwise(bounds))


def _check_groups(groups: Sequence[Sequence[int]], targets: int, *, depth: int) -> None:
    members = sorted(index for group in groups for index in group)
    if members != list(range(targets)) or not all(groups):
        msg = (
            f"backbone.detector.groups={[list(group) for group in groups]} must hold each of "
            f"0..{targets - 1} once: the encoder has {targets} targets (encoder.layers)"
        )
        raise UserError(msg)
    if depth < len(groups):
        msg = (
            f"backbone.detector.decoder_depth={depth} must be at least {len(groups)}, "
            "one block per group"
        )
        raise UserError(msg)
