"""What detectors share that rebuild a frozen encoder's features and compare the two by cosine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.layers import cosine_distance, flat_cosine_loss
from meds_plugin.encoders.weights import check_state_dict
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["ReconstructionDetector"]

ENCODER_PREFIX = "encoder."


class ReconstructionDetector(nn.Module):
    """A frozen encoder whose targets are fused in G groups, and a decoder that rebuilds them.

    A detector adds what it trains, `bottleneck` and `decoder` among it, and says in `rebuild` how
    tokens pass through. The last decoder blocks rebuild the first group.

    Where the encoder's targets share one space, as blocks of a transformer do, a group is their
    mean, and the decoder takes the mean of all. Of a pyramid, a group is its members' channels one
    after another, and the decoder takes those of all. Linear layers lead to the decoder's width
    and from it to the groups', where these differ; for a transformer they never do.

    Args:
        encoder: The frozen encoder; T = prefix + P tokens, patch grid h x w, L targets.
        backbone: The detector's name, which its random numbers are drawn for.
        decoder_depth: Decoder blocks; default: as many as targets.
        groups: Positions among the targets, each in exactly one group; default: the encoder's.
        width: Width D of the decoder; default: that of what it takes.
        heads: Attention heads of the decoder; default: the encoder's.
        keep_prefix: Whether the encoder's prefix tokens go through the decoder too.
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
        backbone: str,
        decoder_depth: int | None,
        groups: Sequence[Sequence[int]] | None,
        width: int | None,
        heads: int | None,
        keep_prefix: bool,
        seed: int,
    ) -> None:
        super().__init__()
        targets = len(encoder.channels)
        self.depth = targets if decoder_depth is None else decoder_depth
        self.groups = encoder.groups if groups is None else tuple(tuple(g) for g in groups)
        _check_groups(self.groups, targets, depth=self.depth)
        self.widths = tuple(
            encoder.channels[0] if encoder.additive else sum(encoder.channels[i] for i in group)
            for group in self.groups
        )
        given = encoder.channels[0] if encoder.additive else sum(self.widths)
        self.dim = given if width is None else width
        self.heads = encoder.heads if heads is None else heads
        _check_width(self.dim, self.heads)
        self.decoder_groups = (
            self.groups if self.depth == targets else _near_equal(self.depth, len(self.groups))
        )
        self.encoder = encoder
        self._dropped_tokens = 0 if keep_prefix else encoder.prefix_tokens
        self._patch_count = math.prod(encoder.grid)
        self._shares = [len(group) / targets for group in self.groups]
        # Absent where widths agree: the authors' checkpoints know no such layers.
        different = any(each != self.dim for each in self.widths)
        with torch_seeded(seed, backbone, "projections"):
            self.embed = nn.ModuleList([nn.Linear(given, self.dim)] if given != self.dim else [])
            self.output = nn.ModuleList(
                nn.Linear(self.dim, each) for each in (self.widths if different else ())
            )

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
            ``[B, T, W]`` the groups' target tokens, their channels one group after another, no
            gradient; prefix tokens, where they are kept, stand first.
        """
        return self._fuse_groups(self.encoder.tokens(images))

    def rebuild(self, encoded: Tensor) -> list[Tensor]:
        """Return the rebuilt groups, each ``[B, T, W_g]``, of ``[B, T, W]`` from `encode`."""
        raise NotImplementedError

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        """Return ``[B, h, w]`` in [0, 2], higher = more anomalous: mean over groups of 1 - cosine.

        Args:
            encoded: ``[B, T, W]`` from `encode`.
        """
        pairs = zip(self.targets(encoded), self.rebuild(encoded), strict=True)
        distances = torch.stack([cosine_distance(*pair) for pair in pairs]).mean(dim=0)
        return self.patches(distances.unsqueeze(-1)).reshape(-1, *self.encoder.grid)

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` of the encoder (see `FrozenEncoder.features`)."""
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
            Targets and reconstructions, for each group ``[B, W_g, h, w]``.
        """
        encoded = self.encode(images)
        return self._on_grid(self.targets(encoded)), self._on_grid(self.rebuild(encoded))

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
        """Return the patch tokens ``[B, P, ...]`` of ``[B, T, ...]``."""
        return tokens[:, -self._patch_count :]

    def targets(self, encoded: Tensor) -> tuple[Tensor, ...]:
        """Return the groups of ``[B, T, W]``, each ``[B, T, W_g]``."""
        groups: tuple[Tensor, ...] = encoded.split(self.widths, dim=-1)
        return groups

    def fuse(self, encoded: Tensor) -> Tensor:
        """Return what the decoder takes, ``[B, T, D]``, of ``[B, T, W]`` from `encode`.

        The mean over all targets, or their channels one after another (see the class).
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
        self, encoded: Tensor, rebuilt: Sequence[Tensor], factors: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the loss of rebuilt tokens, of their patches only (see `flat_cosine_loss`).

        Args:
            encoded: ``[B, T, W]`` from `encode`.
            rebuilt: The groups, each ``[B, T, W_g]``.
            factors: Of the gradient, from ``[B, G, P]`` distances.
        """
        return flat_cosine_loss(self.targets(encoded), rebuilt, factors, patches=self._patch_count)

    def decode(self, tokens: Tensor, *context: Tensor) -> list[Tensor]:
        """Run the bottleneck and the decoder.

        Args:
            tokens: ``[B, T, D]``.
            context: What every decoder block takes beside the tokens.

        Returns:
            For each group ``[B, T, W_g]``: the mean output of its decoder blocks, brought to the
            group's width.
        """
        for layer in self.bottleneck:
            tokens = layer(tokens)
        outputs = []
        for block in self.decoder:
            tokens = block(tokens, *context)
            outputs.append(tokens)
        outputs.reverse()
        rebuilt = [_mean(outputs, group) for group in self.decoder_groups]
        if not len(self.output):
            return rebuilt
        return [layer(each) for layer, each in zip(self.output, rebuilt, strict=True)]

    def _fuse_groups(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return ``[B, T, W]`` of the encoder's targets."""
        kept = [each[:, self._dropped_tokens :] for each in tokens]
        if not self.encoder.additive:
            return torch.cat([kept[place] for group in self.groups for place in group], dim=-1)
        return torch.cat([_mean(kept, group) for group in self.groups], dim=-1)

    def _on_grid(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Lay the patches among ``[B, T, D]`` out on the grid, for each group ``[B, D, h, w]``."""
        columns = [self.patches(group).mT for group in tokens]
        return [each.reshape(*each.shape[:2], *self.encoder.grid) for each in columns]


def _mean(tokens: Sequence[Tensor], members: Sequence[int]) -> Tensor:
    total = tokens[members[0]]
    for index in members[1:]:
        total = total + tokens[index]
    return total / len(members) if len(members) > 1 else total


def _near_equal(count: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """Split 0..count-1 into consecutive parts whose sizes differ by one at most."""
    bounds = [count * part // parts for part in range(parts + 1)]
    return tuple(tuple(range(bounds[i], bounds[i + 1])) for i in range(parts))


def _check_groups(groups: Sequence[Sequence[int]], targets: int, *, depth: int) -> None:
    if sorted(index for group in groups for index in group) != list(range(targets)) or not all(
        groups
    ):
        msg = (
            f"backbone.detector.groups={[list(group) for group in groups]} must hold each of "
            f"0..{targets - 1} once: the encoder has {targets} targets (encoder.layers)"
        )
        raise UserError(msg)
    if depth < len(groups):
        msg = f"backbone.detector.decoder_depth={depth} must be at least {len(groups)}, one a group"
        raise UserError(msg)


def _check_width(width: int, heads: int) -> None:
    if type(width) is not int or width < 1:
        msg = f"backbone.detector.width={width} must be a whole number of at least 1"
        raise UserError(msg)
    if heads < 1 or width % heads:
        msg = f"backbone.detector.heads={heads} must divide the decoder's width {width}"
        raise UserError(msg)
