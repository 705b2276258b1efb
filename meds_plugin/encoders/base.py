"""The base of frozen encoders: networks that return the tokens of their target layers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.encoders.weights import check_state_dict, to_timm_names
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["FrozenEncoder", "check_image_size", "check_layers"]


class FrozenEncoder(nn.Module):
    """A network that never trains: always in evaluation mode, without gradients.

    It returns tokens on one grid h x w, P = h * w, for each of L targets: the outputs of its target
    layers, perhaps resampled and scaled. A subclass implements `tokens` or `layer_maps`; each
    follows from the other.

    Args:
        model: The network, built for one input size.
        image_size: (H, W) of the input in pixels.
        layers: Ascending 0-based indices of the target layers.
        normalization: How images were prepared when the network was trained.

    Attributes:
        model: The network.
        image_size: (H, W) of the input in pixels.
        layers: The target layers.
        normalization: As given.
        grid: (h, w) of the tokens.
        channels: Width C of each target's tokens.
        prefix_tokens: Number of class and register tokens, which precede the patches.
        groups: Targets that belong together, by their positions, for detectors that reconstruct
            groups of targets.
        additive: Whether the targets share one space, as blocks of a transformer do, so that a
            group is represented by their mean; else by the concatenation of their channels.
        heads: A number of attention heads that suits the tokens.
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
        """Stay frozen and in evaluation mode, whatever the argument."""
        super().requires_grad_(requires_grad=False)
        return super().train(mode=False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """Stay frozen, whatever the argument."""
        return super().requires_grad_(requires_grad=False)

    def tokens(self, images: Tensor) -> list[Tensor]:
        """Return the targets; later layers do not run.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            ``[B, prefix + P, C]`` for each of L targets, prefix tokens first, C as in `channels`.

        Raises:
            ValueError: If the images have another size.
        """
        return [each.flatten(2).mT for each in self.layer_maps(images)]

    def features(self, images: Tensor) -> Tensor:
        """Return memory features.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            ``[B, P, D]``, patches row by row, not scaled to unit length.

        Raises:
            ValueError: If the images have another size.
        """
        raise NotImplementedError

    def tokens_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the results of `tokens` and `features`, from one pass if an encoder can.

        Raises:
            ValueError: If the images have another size.
        """
        return self.tokens(images), self.features(images)

    def summary_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return a vector of each whole image and its memory features, from one pass.

        Args:
            images: See `features`.

        Returns:
            ``[B, D]``, the class token if the network has one, else the mean over the patches; and
            the result of `features`.

        Raises:
            ValueError: If the images have another size.
        """
        features = self.features(images)
        return features.mean(1), features

    def layer_maps(
        self, images: Tensor, *, local: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Return the patches on the grid, ``[B, C, h, w]`` for each target (see `tokens`).

        Args:
            images: See `tokens`.
            local: Changes each target's map at its own resolution, before it comes to the grid:
                ``[B, C, h', w']`` -> ``[B, C', h', w']``.
        """
        maps = [self._on_grid(tokens) for tokens in self.tokens(images)]
        return maps if local is None else [local(each) for each in maps]

    def maps_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the results of `layer_maps` and `features`, from one pass if an encoder can."""
        tokens, features = self.tokens_and_features(images)
        return [self._on_grid(each) for each in tokens], features

    def forward(self, images: Tensor) -> Tensor:
        """Return memory features (see `features`)."""
        return self.features(images)

    def load_weights(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Load weights in timm's or their authors' naming, trained at any input size.

        Args:
            state: The weights by name.
            source: Where they come from, for messages.

        Raises:
            UserError: If they do not fit; the encoder stays as it was.
        """
        expected = self.model.state_dict()
        renamed = self._fit(to_timm_names(state, expected), expected)
        check_state_dict(renamed, expected, source=source)
        self.model.load_state_dict(renamed)

    def _fit(self, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Adapt weights that depend on the input size to this encoder's."""
        del expected
        return state

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """Arrange the patches of ``[B, prefix + P, C]`` as ``[B, C, h, w]``."""
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
    """Refuse images that cannot be divided into whole cells.

    Args:
        image_size: (H, W) in pixels.
        cell: Side of a cell in pixels.
        name: The encoder's term for it, ``patch size`` or ``stride``.

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
    """Refuse layers that are not ascending or do not exist.

    Args:
        layers: The indices, 0-based.
        depth: How many layers there are.
        name: The encoder's term for them, ``blocks`` or ``stages``.

    Raises:
        UserError: If the list is empty, or an index is out of range or order.
    """
    ascending = all(a < b for a, b in pairwise(layers))
    if not layers or not ascending or layers[0] < 0 or layers[-1] >= depth:
        msg = (
            f"encoder.layers={list(layers)} must be ascending indices from 0 to {depth - 1}: "
            f"the encoder has {depth} {name}"
        )
        raise UserError(msg)


def _whole_numbers(layers: Any) -> tuple[int, ...]:
    if not is_list(layers) or not all(map(is_whole, layers)):
        msg = f"encoder.layers={layers}: give a list of whole numbers, such as [2,3,4,5]"
        raise UserError(msg)
    return tuple(layers)
