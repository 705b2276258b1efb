"""HVQ: the features of a frozen encoder, rebuilt from a hierarchy of codebooks.

Source: Lu et al., "Hierarchical Vector Quantized Transformer for Multi-class Unsupervised Anomaly
Detection", NeurIPS 2023; MeDS on it has no reference code and follows METHOD section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.codebooks import CodebookInit, Codebooks, CodebookUpdate
from backbones.hvq_checkpoint import split_reference
from backbones.layers import cosine_distance
from backbones.postnorm import LearnedPositions, PostNormLayer
from backbones.routing import Router, Routing
from meds_plugin.encoders.weights import check_state_dict
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["HVQ", "MapKind"]

MapKind = Literal["cosine", "l2"]

OT_WEIGHT = 80.0
MOST_TARGETS = 4


class HVQ(nn.Module):
    """The detector: a transformer between whose two halves only codes pass.

    Tokens of the encoder's features F run through L layers; the output of each, and the tokens
    themselves, are replaced by the nearest codes of a codebook, deepest first; a decoder rebuilds F
    from the codes. Codes stand for what is frequent, so that defects are rebuilt badly.

    With ``classes`` above 1, codebooks and the last layer exist once a category, as in the paper.
    In training an image's category picks its own; `routing` says what does later.

    Args:
        encoder: The frozen encoder of any kind; F has C channels on its grid h x w, P = h * w. It
            stays in evaluation mode; the reference trains with its batch norm on batch statistics
            and drop-connect on.
        target_layers: Positions among the encoder's targets that make F, channels one after
            another; default: all of a pyramid, up to four blocks of a transformer, evenly spread.
        embed_dim: Width D of the encoder's tokens; the decoder has 2 D.
        codes: Codes in a set.
        hidden: Width of the layers' hidden part.
        heads: Attention heads, a divisor of D.
        depth: Layers L of each half; there are L + 1 codebooks.
        dropout: Rate in the layers.
        attention_dropout: Rate on attention weights; default: as `dropout`, which is the
            reference's. 0 makes training on a CPU about twice as fast.
        classes: Number K of categories with codes of their own; 1: one set for all, without labels.
        routing: Where K > 1, what picks the set in evaluation mode (see `Router`). ``nearest``: the
            category whose training images are most alike, no label needed. ``label``: the given
            category, as in the reference, which knows it at test time too.
        map: What evaluation mode returns. ``cosine``: 1 - cosine of rebuilt and true features, the
            unit of memory scores. ``l2``: the reference's distance, for comparisons with the plain
            detector; it is not what distillation trains. Training mode returns ``cosine`` always.
        ot: Add the reference's transport score between tokens and codes to the ``l2`` map.
        latent_weight: Weight of the distance between tokens and codes in the loss.
        codebook_init: See `Codebooks`; ``reference`` makes most codes useless.
        codebook_update: See `Codebooks`; ``image`` is the reference's.
        revival: See `Codebooks`.
        decay: See `Codebooks`.
        seed: For the initial weights and codes.

    Raises:
        UserError: If the arguments do not fit each other or the encoder.

    Source:
        METHOD section 4. Weights start as torch's layers do.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        target_layers: Sequence[int] | None = None,
        embed_dim: int = 256,
        codes: int = 512,
        hidden: int = 1024,
        heads: int = 8,
        depth: int = 4,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        classes: int = 1,
        routing: Routing = "nearest",
        map: MapKind = "cosine",  # noqa: A002
        ot: bool = False,
        latent_weight: float = 0.25,
        codebook_init: CodebookInit = "data",
        codebook_update: CodebookUpdate = "batch",
        revival: float = 0.0,
        decay: float = 0.99,
        seed: int = 0,
    ) -> None:
        super().__init__()
        mix_dropout = dropout if attention_dropout is None else attention_dropout
        layers = len(encoder.channels)
        default = _spread(layers) if encoder.additive else range(layers)
        self.target_layers = tuple(default if target_layers is None else target_layers)
        _check(self.target_layers, layers, embed_dim=embed_dim, heads=heads, depth=depth)
        _check_choices(map, ot=ot, rates={"dropout": dropout, "attention_dropout": mix_dropout})
        self.encoder = encoder
        self.classes = classes
        self.map = map
        self.ot = ot
        self.latent_weight = latent_weight
        channels = sum(encoder.channels[place] for place in self.target_layers)
        self.codebooks = nn.ModuleList(
            Codebooks(
                classes,
                codes,
                embed_dim if level == depth else 2 * embed_dim,
                decay=decay,
                init=codebook_init,
                update=codebook_update,
                revival=revival,
                seed=seed,
                level=level,
            )
            for level in range(depth + 1)
        )
        self.router = Router(classes, channels, routing=routing)
        common: dict[str, Any] = {
            "hidden": hidden,
            "dropout": dropout,
            "attention_dropout": mix_dropout,
        }
        with torch_seeded(seed, "hvq", "weights"):
            self.embed = nn.Linear(channels, embed_dim)
            self.positions = LearnedPositions(encoder.grid, embed_dim)
            self.layers = nn.ModuleList(
                PostNormLayer(embed_dim, heads, **common) for _ in range(depth)
            )
            self.decoder = nn.ModuleList(
                PostNormLayer(2 * embed_dim, heads, cross=True, **common) for _ in range(depth)
            )
            self.norm = nn.LayerNorm(2 * embed_dim)
            outputs = [nn.Linear(2 * embed_dim, channels) for _ in range(classes)]
        self.output_weight = nn.Parameter(torch.stack([each.weight.data for each in outputs]))
        self.output_bias = nn.Parameter(torch.stack([each.bias.data for each in outputs]))
        self._latent: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last forward's loss out of copies: its graph cannot be copied."""
        return {**self.__dict__, "_latent": None}

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the transformer trains; the encoder stays frozen."""
        super().requires_grad_(requires_grad)
        self.encoder.requires_grad_(requires_grad=False)
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images it takes, in pixels."""
        return self.encoder.image_size

    @property
    def needs_category(self) -> bool:
        """Whether an image's category is needed to judge it."""
        return self.classes > 1 and self.router.routing == "label"

    def encode(self, images: Tensor) -> Tensor:
        """Return F, all that training needs of the images.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it expects.

        Returns:
            ``[B, C, h, w]``, no gradient.
        """
        return self._targets(self.encoder.layer_maps(images))

    def anomaly_map(self, encoded: Tensor, *, category: Tensor | None = None) -> Tensor:
        """Return ``[B, h, w]`` maps, higher = more anomalous.

        1 - cosine of rebuilt and true features, in [0, 2]; in evaluation mode with ``map="l2"``
        their distance, >= 0, plus 80 times the transport score where ``ot``.

        Args:
            encoded: ``[B, C, h, w]`` from `encode`.
            category: ``[B]`` index of each image's category, -1 where it has none; needed only
                where ``classes`` is above 1, in training or with ``routing="label"``.

        Raises:
            UserError: If a category is needed and is not there.
        """
        targets = encoded.float().flatten(2).mT
        rebuilt, category, finest = self._rebuild(targets, category)
        if self.training or self.map == "cosine":
            return cosine_distance(targets, rebuilt).view(-1, *self.encoder.grid)
        distance: Tensor = torch.linalg.vector_norm(rebuilt - targets, dim=-1)
        if self.ot:
            distance = distance + OT_WEIGHT * self._transport(finest, category)
        return distance.view(-1, *self.encoder.grid)

    def loss(
        self, encoded: Tensor, *, step: int, total_steps: int, category: Tensor | None = None
    ) -> Tensor:
        """Return HVQ's own loss, a scalar: mean squared error plus the weighted latent loss.

        Args:
            encoded: ``[B, C, h, w]`` from `encode`.
            step: Not used.
            total_steps: Not used.
            category: See `anomaly_map`.
        """
        del step, total_steps
        targets = encoded.float().flatten(2).mT
        rebuilt, _, _ = self._rebuild(targets, category)
        return F.mse_loss(rebuilt, targets) + self.auxiliary_loss()

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted latent loss of the last map or loss in training mode, a scalar.

        To be added to a loss on the map: it keeps tokens near their codes.

        Raises:
            RuntimeError: If there was none, or it was taken before.
        """
        if self._latent is None:
            msg = "the latent loss exists once after each anomaly_map in training mode"
            raise RuntimeError(msg)
        latent, self._latent = self._latent, None
        return self.latent_weight * latent

    def image_score(self, maps: Tensor) -> Tensor:
        """Return ``[B]`` image scores, higher = more anomalous.

        The largest mean over a window of one grid cell's size (16 x 16 pixels in the reference)
        of the map at the images' size.

        Args:
            maps: ``[B, h, w]`` of any resolution.
        """
        size, grid = self.encoder.image_size, self.encoder.grid
        large = F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=True)
        window = (max(1, size[0] // grid[0]), max(1, size[1] // grid[1]))
        return F.avg_pool2d(large, window, stride=1).flatten(1).amax(dim=1)

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` of the encoder (see `FrozenEncoder.features`)."""
        return self.encoder.features(images)

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `encode` and `features` do, from one pass through the encoder."""
        maps, features = self.encoder.maps_and_features(images)
        return self._targets(maps), features

    def forward(self, images: Tensor, *, category: Tensor | None = None) -> Tensor:
        """Map ``[B, 3, H, W]`` images to ``[B, h, w]`` maps (see `anomaly_map`)."""
        return self.anomaly_map(self.encode(images), category=category)

    def reconstruct(
        self, images: Tensor, *, category: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the encoder's features and their rebuilt form.

        Args:
            images: ``[B, 3, H, W]``.
            category: See `anomaly_map`.

        Returns:
            Targets and reconstructions, one of each: ``[B, C, h, w]``.
        """
        encoded = self.encode(images)
        rebuilt, _, _ = self._rebuild(encoded.float().flatten(2).mT, category)
        return [encoded], [rebuilt.mT.reshape(encoded.shape)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters but the encoder's as one group."""
        frozen = {id(parameter) for parameter in self.encoder.parameters()}
        return [{"params": [p for p in self.parameters() if id(p) not in frozen]}]

    def codes_in_use(self, share: float = 0.1) -> list[int]:
        """Return how many codes of each codebook stand for tokens, the finest first.

        Args:
            share: Of the mean over the set; codes with less are not counted.
        """
        sizes = [level.cluster_size for level in self._levels()]
        return [int((s > share * s.mean(dim=1, keepdim=True)).sum()) for s in sizes]

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            state_dict: Their names, with or without ``module.`` before them; ``input_proj.*``,
                which their model does not use, is left out. Where it has ``enc.*``, the encoder's
                weights, batch statistics included, are loaded too. Means for ``routing="nearest"``
                are not in it: take ``label``, or train on.

        Raises:
            UserError: If names or shapes differ from this model's; nothing is changed then.
        """
        source = "the reference checkpoint"
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        given, encoder = split_reference(state_dict, own, classes=self.classes)
        check_state_dict(given, own, source=source)
        if encoder:
            self.encoder.load_weights(encoder, source=f"{source}'s encoder")
        self.load_state_dict(given, strict=False)

    def _targets(self, maps: Sequence[Tensor]) -> Tensor:
        """Return F ``[B, C, h, w]`` of the encoder's target layers."""
        return torch.cat([maps[place] for place in self.target_layers], dim=1)

    def _levels(self) -> list[Codebooks]:
        return [level for level in self.codebooks if isinstance(level, Codebooks)]

    def _rebuild(self, targets: Tensor, category: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rebuilt features ``[B, P, C]``, the sets used, and the finest tokens."""
        category = self.router(targets.mean(dim=1), category)
        positions = self.positions()
        outputs = [self.embed(targets)]
        for layer in self.layers:
            outputs.append(layer(outputs[-1], positions))
        *finer, deepest = self._levels()
        top, latent, _ = deepest(outputs[-1], category)
        memories = []
        tokens = top
        for level, output in zip(reversed(finer), reversed(outputs[:-1]), strict=True):
            tokens = torch.cat([output, top], dim=-1)
            quantised, part, _ = level(tokens, category)
            latent = latent + part
            memories.append(quantised)
        self._latent = latent if self.training else None
        both = torch.cat([positions, positions], dim=-1)
        rebuilt = memories[0]
        for layer, memory in zip(self.decoder, memories, strict=True):
            rebuilt = layer(rebuilt, both, memory)
        rebuilt = self.norm(rebuilt)
        if self.classes == 1:
            out = F.linear(rebuilt, self.output_weight[0], self.output_bias[0])
        else:
            bias = self.output_bias[category].unsqueeze(1)
            out = torch.baddbmm(bias, rebuilt, self.output_weight[category].mT)
        return out.float(), category, tokens.float()

    def _transport(self, tokens: Tensor, category: Tensor) -> Tensor:
        """Return the reference's score ``[B, P]`` of tokens against the finest codes.

        The mean cosine distance to the codes, weighted by a softmax of their inner products over
        the number of codes.
        """
        codes = self._levels()[0].codes_of(category)
        weights = (tokens @ codes.mT / codes.shape[1]).softmax(dim=-1)
        cosine = F.normalize(tokens, dim=-1) @ F.normalize(codes, dim=-1).mT
        return (weights * (1.0 - cosine)).sum(dim=-1)


def _spread(layers: int) -> tuple[int, ...]:
    """Return up to four of 0..layers-1, evenly spread, the last among them."""
    count = min(layers, MOST_TARGETS)
    return tuple((place + 1) * layers // count - 1 for place in range(count))


def _check(
    targets: tuple[int, ...], layers: int, *, embed_dim: int, heads: int, depth: int
) -> None:
    if not targets or len(set(targets)) < len(targets) or not set(targets) <= set(range(layers)):
        msg = (
            f"backbone.detector.target_layers={list(targets)} must be different positions from 0 "
            f"to {layers - 1}: the encoder has {layers} targets (encoder.layers)"
        )
        raise UserError(msg)
    if heads < 1 or embed_dim < 2 or embed_dim % 2 or embed_dim % heads:
        msg = (
            f"backbone.detector.embed_dim={embed_dim} must be even and a multiple of heads={heads}"
        )
        raise UserError(msg)
    if depth < 1:
        msg = f"backbone.detector.depth must be at least 1, got {depth}"
        raise UserError(msg)


def _check_choices(kind: object, *, ot: bool, rates: Mapping[str, float]) -> None:
    if kind not in get_args(MapKind):
        msg = f"backbone.detector.map must be cosine or l2, got {kind!r}"
        raise UserError(msg)
    if ot and kind != "l2":
        msg = "backbone.detector.ot=true adds to the l2 map: set backbone.detector.map=l2 too"
        raise UserError(msg)
    for name, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            msg = f"backbone.detector.{name} must be at least 0 and below 1, got {rate}"
            raise UserError(msg)
