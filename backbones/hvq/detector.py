"""HVQ: the features of a frozen encoder, reconstructed from a hierarchy of codebooks.

Source: Lu et al., "Hierarchical Vector Quantized Transformer for Multi-class Unsupervised Anomaly
Detection", NeurIPS 2023; MeDS on it has no reference code: see docs/method.md, section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.hvq.checkpoint import split_reference
from backbones.hvq.codebooks import CodebookInit, Codebooks, CodebookUpdate
from backbones.hvq.layers import LearnedPositions, PostNormLayer
from backbones.hvq.routing import Router, Routing
from backbones.shared.arguments import check_choice, check_counts, check_rates
from backbones.shared.cosine import cosine_distance
from backbones.shared.encoder_detector import EncoderDetector
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["HVQ", "MapKind"]

MapKind = Literal["cosine", "l2"]

OT_WEIGHT = 80.0
MOST_TARGETS = 4


class HVQ(EncoderDetector):
    """The detector: a transformer whose decoder sees nothing but codes.

    Tokens of the frozen encoder's features F pass through L layers; the output of each, and the
    tokens themselves, are replaced by the nearest codes of a codebook, deepest first; a decoder
    reconstructs F from the codes. Codes stand for what is frequent, so defects are reconstructed
    badly.

    With ``classes`` above 1, each category has codebooks and a last layer of its own, as in the
    paper. In training, an image's category picks them; `routing` says what does later.

    Args:
        encoder: The frozen encoder of any kind; F has C channels on its grid h x w, P = h * w. It
            stays in evaluation mode; the reference trains with its batch norm on batch statistics
            and with drop-connect.
        target_layers: Positions among the encoder's targets whose concatenated channels make F;
            default: all of a pyramid, up to four blocks of a transformer, evenly spread.
        embed_dim: Width D of the encoder's tokens; the decoder has 2 D.
        codes: Codes in a set.
        hidden: Width of the layers' hidden part.
        heads: Attention heads, a divisor of D.
        depth: Layers L before and after the codebooks, of which there are L + 1.
        dropout: Rate in the layers.
        attention_dropout: Rate on attention weights; default: `dropout`, as in the reference. 0
            makes training on a CPU about twice as fast.
        classes: Number K of categories with codes of their own; 1: one set for all, no labels
            needed.
        routing: Where K > 1, what picks the set in evaluation mode (see `Router`). ``nearest``: the
            category whose training images are most similar, no label needed. ``label``: the given
            category, as in the reference, which knows it at test time too.
        map: What evaluation mode returns. ``cosine``: 1 - cosine of reconstructed and true
            features, the unit of memory scores. ``l2``: the reference's distance, for comparisons
            with the plain detector; distillation does not train it. Training mode always returns
            ``cosine``.
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
        docs/method.md, section 6. Weights start as torch's layers do.
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
        super().__init__(encoder)
        if attention_dropout is None:
            attention_dropout = dropout
        layers = len(encoder.channels)
        default = _spread(layers) if encoder.additive else range(layers)
        self.target_layers = tuple(default if target_layers is None else target_layers)
        _check_target_layers(self.target_layers, layers)
        _check_width(embed_dim, heads)
        _check_map(map, ot=ot)
        check_counts(depth=depth)
        check_rates(dropout=dropout, attention_dropout=attention_dropout)
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
            "attention_dropout": attention_dropout,
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
        """Leave the last forward's loss out of copies, as its graph cannot be copied."""
        return {**self.__dict__, "_latent": None}

    @property
    def needs_category(self) -> bool:
        """Whether an image's category is needed to score it."""
        return self.classes > 1 and self.router.routing == "label"

    def encode(self, images: Tensor) -> Tensor:
        """Return F, all that training needs of the images.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it expects.

        Returns:
            ``[B, C, h, w]``, without gradient.
        """
        return self._targets(self.encoder.layer_maps(images))

    def anomaly_map(self, encoded: Tensor, *, category: Tensor | None = None) -> Tensor:
        """Return ``[B, h, w]`` maps, higher = more anomalous.

        1 - cosine of reconstructed and true features, in [0, 2]; in evaluation mode with
        ``map="l2"`` their distance, >= 0, with ``ot`` plus 80 times the transport score.

        Args:
            encoded: ``[B, C, h, w]`` from `encode`.
            category: ``[B]`` index of each image's category, -1 where it has none; needed only
                where ``classes`` is above 1, in training or with ``routing="label"``.

        Raises:
            UserError: If a category is needed but missing.
        """
        targets = encoded.float().flatten(2).mT
        reconstructed, category, finest = self._reconstruct(targets, category)
        if self.training or self.map == "cosine":
            return cosine_distance(targets, reconstructed).view(-1, *self.encoder.grid)
        distance: Tensor = torch.linalg.vector_norm(reconstructed - targets, dim=-1)
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
        reconstructed, _, _ = self._reconstruct(targets, category)
        return F.mse_loss(reconstructed, targets) + self.auxiliary_loss()

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted latent loss of the last forward in training mode, a scalar.

        To be added to a loss on the map; it holds tokens close to their codes.

        Raises:
            RuntimeError: If there was no such forward, or its loss was taken before.
        """
        if self._latent is None:
            msg = "the latent loss exists once after each anomaly_map in training mode"
            raise RuntimeError(msg)
        latent, self._latent = self._latent, None
        return self.latent_weight * latent

    def image_score(self, maps: Tensor) -> Tensor:
        """Return ``[B]`` image scores, higher = more anomalous.

        The map is resized to the images' size; the score is its largest mean over a window of one
        grid cell (16 x 16 pixels in the reference).

        Args:
            maps: ``[B, h, w]`` of any resolution.
        """
        size, grid = self.encoder.image_size, self.encoder.grid
        large = F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=True)
        window = (max(1, size[0] // grid[0]), max(1, size[1] // grid[1]))
        return F.avg_pool2d(large, window, stride=1).flatten(1).amax(dim=1)

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results of `encode` and `features` from one pass through the encoder."""
        maps, features = self.encoder.maps_and_features(images)
        return self._targets(maps), features

    def forward(self, images: Tensor, *, category: Tensor | None = None) -> Tensor:
        """Map ``[B, 3, H, W]`` images to ``[B, h, w]`` maps (see `anomaly_map`)."""
        return self.anomaly_map(self.encode(images), category=category)

    def reconstruct(
        self, images: Tensor, *, category: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the encoder's features and their reconstruction.

        Args:
            images: ``[B, 3, H, W]``.
            category: See `anomaly_map`.

        Returns:
            Targets and reconstructions, one of each: ``[B, C, h, w]``.
        """
        encoded = self.encode(images)
        reconstructed, _, _ = self._reconstruct(encoded.float().flatten(2).mT, category)
        return [encoded], [reconstructed.mT.reshape(encoded.shape)]

    def load_reference_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the authors' code.

        Args:
            state_dict: Weights under their names, with or without the prefix ``module.``;
                ``input_proj.*``, which their model does not use, is ignored. Where there is
                ``enc.*``, the encoder's weights, batch statistics included, are loaded too. It
                has no means for ``routing="nearest"``: use ``label``, or train on.

        Raises:
            UserError: If names or shapes differ from this model's; nothing is changed then.
        """
        self._load_reference(*split_reference(state_dict, self._own_state(), classes=self.classes))

    def _targets(self, maps: Sequence[Tensor]) -> Tensor:
        """Return F ``[B, C, h, w]`` of the encoder's target layers."""
        return torch.cat([maps[place] for place in self.target_layers], dim=1)

    def _levels(self) -> list[Codebooks]:
        return [level for level in self.codebooks if isinstance(level, Codebooks)]

    def _reconstruct(
        self, targets: Tensor, category: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructed features ``[B, P, C]``, the sets used, and the finest tokens."""
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
        decoded = memories[0]
        for layer, memory in zip(self.decoder, memories, strict=True):
            decoded = layer(decoded, both, memory)
        decoded = self.norm(decoded)
        if self.classes == 1:
            out = F.linear(decoded, self.output_weight[0], self.output_bias[0])
        else:
            bias = self.output_bias[category].unsqueeze(1)
            out = torch.baddbmm(bias, decoded, self.output_weight[category].mT)
        return out.float(), category, tokens.float()

    def _transport(self, tokens: Tensor, category: Tensor) -> Tensor:
        """Return the reference's score ``[B, P]`` of tokens against the finest codes.

        The mean cosine distance to the codes, weighted by the softmax of their inner products
        divided by the number of codes.
        """
        codes = self._levels()[0].codes_of(category)
        weights = (tokens @ codes.mT / codes.shape[1]).softmax(dim=-1)
        cosine = F.normalize(tokens, dim=-1) @ F.normalize(codes, dim=-1).mT
        return (weights * (1.0 - cosine)).sum(dim=-1)


def _spread(layers: int) -> tuple[int, ...]:
    """Return up to four of 0..layers-1, evenly spread, including the last."""
    count = min(layers, MOST_TARGETS)
    return tuple((place + 1) * layers // count - 1 for place in range(count))


def _check_target_layers(targets: tuple[int, ...], layers: int) -> None:
    if not targets or len(set(targets)) < len(targets) or not set(targets) <= set(range(layers)):
        msg = (
            f"backbone.detector.target_layers={list(targets)} must be different positions from 0 "
            f"to {layers - 1}: the encoder has {layers} targets (encoder.layers)"
        )
        raise UserError(msg)


def _check_width(embed_dim: int, heads: int) -> None:
    if heads < 1 or embed_dim < 2 or embed_dim % 2 or embed_dim % heads:
        msg = (
            f"backbone.detector.embed_dim={embed_dim} must be even and a multiple of heads={heads}"
        )
        raise UserError(msg)


def _check_map(kind: object, *, ot: bool) -> None:
    check_choice("map", kind, get_args(MapKind))
    if ot and kind != "l2":
        msg = "backbone.detector.ot=true adds to the l2 map: set backbone.detector.map=l2 too"
        raise UserError(msg)
