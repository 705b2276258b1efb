"""A frozen network whose feature maps shrink with depth: CNNs and hierarchical transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.encoders.base import FrozenEncoder, check_image_size, check_layers
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.values import is_list, is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PyramidEncoder", "PyramidSettings"]

Resample = Literal["area", "bilinear"]

_MAX_HEADS = 8


@dataclass(frozen=True)
class PyramidSettings:
    """How stages of different sizes become tokens on one grid.

    Attributes:
        stride: Side of a token in pixels of the input; ``None``: the deepest target stage's stride.
            Stages below the grid's resolution are interpolated, and help to find large defects.
        resample: How finer stages are brought to the grid: ``area`` averages each cell;
            ``bilinear`` samples with aligned corners, without smoothing, as the HVQ reference does.
        balance: Scale the tokens of each stage to one length, so that no stage dominates a cosine
            by its scale; all channels together have a mean square of 1.
        weights: Weight of each target stage in a cosine, if balanced; ``None``: equal weights.

    Raises:
        UserError: If a value is out of range.
    """

    stride: int | None = None
    resample: Resample = "area"
    balance: bool = True
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.stride is not None and (not is_whole(self.stride) or self.stride < 1):
            msg = f"encoder.pyramid.stride must be a number of pixels, got {self.stride!r}"
            raise UserError(msg)
        if self.resample not in get_args(Resample):
            msg = f"encoder.pyramid.resample must be area or bilinear, got {self.resample!r}"
            raise UserError(msg)
        if not isinstance(self.balance, bool):
            msg = f"encoder.pyramid.balance must be true or false, got {self.balance!r}"
            raise UserError(msg)
        if self.weights is not None and not self.balance:
            msg = "encoder.pyramid.weights need encoder.pyramid.balance=true: leave them out"
            raise UserError(msg)

    def lengths(self, channels: Sequence[int]) -> list[float]:
        """Return the length to which the tokens of each target stage are scaled.

        Args:
            channels: The number of channels of each stage.

        Raises:
            UserError: If the number of weights differs, or one is not positive.
        """
        weights = [1.0] * len(channels) if self.weights is None else self.weights
        positive = is_list(weights) and all(is_number(w) and 0 < w < math.inf for w in weights)
        if not positive or not weights:
            msg = f"encoder.pyramid.weights must be positive numbers, got {self.weights!r}"
            raise UserError(msg)
        if len(weights) != len(channels):
            msg = (
                f"encoder.pyramid.weights={list(weights)} must be one for each of the "
                f"{len(channels)} target stages (encoder.layers); null weights them equally"
            )
            raise UserError(msg)
        total = sum(weights)
        return [math.sqrt(weight / total * sum(channels)) for weight in weights]


class PyramidEncoder(FrozenEncoder):
    """A timm network with stages of decreasing resolution; in evaluation mode, without gradients.

    All target stages are resampled to one grid. The memory features are the same tokens, with the
    channels of all targets concatenated.

    Args:
        model: A timm model with ``feature_info`` and ``forward_intermediates``.
        image_size: (H, W) of the input in pixels, multiples of the deepest target stage's stride.
        layers: Ascending 0-based indices of the target stages, in timm's numbering.
        settings: How stages become tokens.
        normalization: How images were prepared when the network was trained.

    Attributes:
        groups: One of all targets.

    Raises:
        UserError: If the image size is not a multiple of a stride, a stage does not exist, the
            settings do not fit, or the network does not accept images of this size.

    Source:
        docs/method.md, sections 6 and 7. The HVQ reference pads one used layer of its
        EfficientNet as for 380 px; timm pads for the actual size. Batch norm keeps its trained
        statistics, which the reference lets drift.
    """

    def __init__(
        self,
        model: nn.Module,
        image_size: tuple[int, int],
        layers: Sequence[int],
        *,
        settings: PyramidSettings | None = None,
        normalization: Normalization = IMAGENET,
    ) -> None:
        super().__init__(model, image_size, layers, normalization=normalization)
        self.settings = settings or PyramidSettings()
        stages = list(self.model.feature_info)
        check_layers(self.layers, len(stages), name="stages")
        deepest = int(stages[self.layers[-1]]["reduction"])
        check_image_size(image_size, deepest, name="stride")
        stride = self.settings.stride or deepest
        check_image_size(image_size, stride, name="token stride (encoder.pyramid.stride)")
        self.train(mode=False)
        try:
            shapes = [tap.shape for tap in self._taps(torch.zeros(1, 3, *image_size))]
        except Exception as error:
            name = type(model).__name__
            msg = (
                f"encoder.model ({name}) does not take images of {image_size[0]} x "
                f"{image_size[1]}: {brief(error)}; change data.image_size or encoder.model"
            )
            raise UserError(msg) from error
        # The size of a stage may differ from what its stride suggests.
        self.grid = (
            (int(shapes[-1][2]), int(shapes[-1][3]))
            if stride == deepest
            else (image_size[0] // stride, image_size[1] // stride)
        )
        widths = [int(shape[1]) for shape in shapes]
        self.channels = tuple(widths)
        self.groups = (tuple(range(len(widths))),)
        self._lengths = self.settings.lengths(widths)
        self.heads = math.gcd(sum(self.channels), _MAX_HEADS)

    def features(self, images: Tensor) -> Tensor:
        """Return ``[B, P, D]``: the tokens, D = all their channels (see `FrozenEncoder`)."""
        return self.tokens_and_features(images)[1]

    def tokens_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the tokens, and their concatenation as features (see `FrozenEncoder`)."""
        tokens = self.tokens(images)
        return tokens, torch.cat(tokens, dim=2)

    @torch.no_grad()
    def layer_maps(
        self, images: Tensor, *, local: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Return the targets on the grid, ``[B, C, h, w]`` each (see `FrozenEncoder`)."""
        self._check_images(images)
        taps = self._taps(images)
        maps = [self._resampled(tap if local is None else local(tap)) for tap in taps]
        if not self.settings.balance:
            return maps
        # In float32: squares of half-precision values may overflow.
        pairs = zip(maps, self._lengths, strict=True)
        return [length * F.normalize(each.float(), dim=1) for each, length in pairs]

    def _resampled(self, tap: Tensor) -> Tensor:
        """Resample a stage to the grid."""
        if tuple(tap.shape[2:]) == self.grid:
            return tap
        if self.settings.resample == "bilinear":
            return F.interpolate(tap, size=self.grid, mode="bilinear", align_corners=True)
        if tap.shape[2] < self.grid[0]:
            return F.interpolate(tap, size=self.grid, mode="bilinear", align_corners=False)
        return F.adaptive_avg_pool2d(tap, self.grid)

    @torch.no_grad()
    def _taps(self, images: Tensor) -> list[Tensor]:
        """Return the target stages' outputs at their own resolution; later stages do not run."""
        return list(
            self.model.forward_intermediates(
                # Convolutions take a tenth to a sixth less time, and tokens need no transposition.
                images.contiguous(memory_format=torch.channels_last),
                indices=list(self.layers),
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        )
