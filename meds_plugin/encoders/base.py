"""What all frozen encoders share: they only run, and give the tokens of their target layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.encoders.weights import check_state_dict, to_timm_names
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

__all__ = ["FrozenEncoder", "check_image_size", "check_layers"]


class FrozenEncoder(nn.Module):
    """A network that only ever runs: in evaluation mode, without gradients.

    What it gives are tokens on one grid h x w, P = h * w, once for each of L targets: the outputs
    of its target layers, or what is made of them. A subclass says how to get them as `tokens` or as
    `layer_maps`; each follows from the other.

    Args:
        model: The network, made for one input size.
        image_size: (H, W) of the input in pixels.
        layers: Ascending 0-based indices of the target layers.
        normalization: What the network's images went through when it was trained.

    Attributes:
        model: The network.
        image_size: (H, W) of the input in pixels.
        layers: The target layers.
        normalization: As given.
        grid: (h, w) of the tokens.
        channels: Width C of each target's tokens.
        prefix_tokens: Class and register tokens, which stand before the patches.
        groups: Positions among the targets that belong together, for detectors that
            reconstruct groups.
        additive: Whether the targets share one space, as blocks of a transformer do, so that a
            group is their mean. Else a group is its members' channels, one after another.
        heads: Attention heads that suit the tokens.
    """

    grid: tuple[int, int]
    channels: tuple[int, ...]
    prefix_tokens: int = 0
    groups: tuple[tuple[int, ...], ...]
    additive: bool = False
    heads: int

    def __init__(
        self,
        model: nn.Module,
        image_size: tuple[int, int],
        layers: Sequence[int],
        *,
        normalization: Normalization = IMAGENET,
    ) -> None:
        super().__init__()
        self.model = cast("Any", model)
        self.image_size = image_size
        self.layers = _whole_numbers(layers)
        self.normalization = normalization

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay frozen and in evaluation mode, whatever is asked."""
        super().requires_grad_(requires_grad=False)
        return super().train(mode=False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """Stay frozen, whatever is asked."""
        return super().requires_grad_(requires_grad=False)

    def tokens(self, images: Tensor) -> list[Tensor]:
        """Return the targets; later layers do not run.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            For each of L targets ``[B, prefix + P, C]``, prefix tokens first, C as in `channels`.

        Raises:
            ValueError: If the images have another size.
        """
        return [each.flatten(2).mT for each in self.layer_maps(images)]

    def features(self, images: Tensor) -> Tensor:
        """Return memory features.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            ``[B, P, D]``, row by row, not scaled to unit length.

        Raises:
            ValueError: If the images have another size.
        """
        raise NotImplementedError

    def tokens_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `tokens` and `features` do, where an encoder can from one pass.

        Raises:
            ValueError: If the images have another size.
        """
        return self.tokens(images), self.features(images)

    def layer_maps(self, images: Tensor) -> list[Tensor]:
        """Return the targets' patches on the grid, for each ``[B, C, h, w]`` (see `tokens`)."""
        return [self._on_grid(tokens) for tokens in self.tokens(images)]

    def maps_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `layer_maps` and `features` do, where an encoder can from one pass."""
        tokens, features = self.tokens_and_features(images)
        return [self._on_grid(each) for each in tokens], features

    def forward(self, images: Tensor) -> Tensor:
        """Return memory features (see `features`)."""
        return self.features(images)

    def load_weights(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Load weights in timm's or their authors' naming, made at any input size.

        Args:
            state: The weights by name.
            source: Where they come from, for messages.

        Raises:
            UserError: If they do not fit; nothing is changed then.
        """
        expected = self.model.state_dict()
        renamed = self._fit(to_timm_names(state, expected), expected)
        check_state_dict(renamed, expected, source=source)
        self.model.load_state_dict(renamed)

    def _fit(self, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit weights that depend on the input size to ours."""
        del expected
        return state

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """Lay the patches of ``[B, prefix + P, C]`` out as ``[B, C, h, w]``."""
        patches = tokens[:, self.prefix_tokens :]
        return patches.mT.reshape(tokens.shape[0], tokens.shape[2], *self.grid)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[2:]) != self.image_size:
            height, width = self.image_size
            msg = (
                f"the encoder takes images [B, 3, {height}, {width}], got {tuple(images.shape)}: "
                f"set data.image_size to the size of the images"
            )
            raise ValueError(msg)


def check_image_size(image_size: tuple[int, int], cell: int, *, name: str) -> None:
    """Refuse images that cannot be cut into whole cells.

    Args:
        image_size: (H, W) in pixels.
        cell: Side of a cell in pixels.
        name: What the encoder calls it, ``patch size`` or ``stride``.

    Raises:
        UserError: Naming the nearest sizes.
    """
    below = {side: max(side // cell, 1) * cell for side in image_size if side % cell}
    if below:
        shown = image_size[0] if image_size[0] == image_size[1] else list(image_size)
        nearest = ", ".join(f"{side} -> {low} or {low + cell}" for side, low in below.items())
        msg = (
            f"data.image_size={shown} (data.crop where given) must be a multiple of the encoder's "
            f"{name} {cell}; nearest: {nearest}"
        )
        raise UserError(msg)


def check_layers(layers: tuple[int, ...], depth: int, *, name: str) -> None:
    """Refuse indices that are not ascending or do not exist.

    Args:
        layers: The indices, 0-based.
        depth: How many layers there are.
        name: What the encoder calls them, ``blocks`` or ``stages``.

    Raises:
        UserError: If there is none, or one is out of range or order.
    """
    ascending = all(a < b for a, b in pairwise(layers))
    if not layers or not ascending or layers[0] < 0 or layers[-1] >= depth:
        msg = (
            f"encoder.layers={list(layers)} must be ascending indices from 0 to {depth - 1}: "
            f"the encoder has {depth} {name}"
        )
        raise UserError(msg)


def _whole_numbers(layers: Any) -> tuple[int, ...]:
    listed = isinstance(layers, Sequence) and not isinstance(layers, str)
    if not listed or any(isinstance(k, bool) or not isinstance(k, int) for k in layers):
        msg = f"encoder.layers={layers}: give a list of whole numbers, such as [2,3,4,5]"
        raise UserError(msg)
    return tuple(layers)
