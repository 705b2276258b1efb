"""What all rivals have in common: features go in, maps and image scores come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor, nn

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["Fit", "PatchFeatures", "Rival", "Scores", "TensorFeatures", "all_features"]


class PatchFeatures(Protocol):
    """Patch features of N images, a batch at a time; each iteration starts anew.

    Attributes:
        grid: (h, w) of the patches, P = h * w, row by row.
        image_size: (H, W) of the images in pixels.
        device: Where the features are, and computations take place.
        layers: How many of the D channels come from each layer; empty: there is one layer.
    """

    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def image_size(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    @property
    def layers(self) -> tuple[int, ...]: ...  # noqa: D102

    def __len__(self) -> int:
        """Return N, at least 1."""

    def __iter__(self) -> Iterator[tuple[range, Tensor]]:
        """Yield the places of some images and their features ``[b, P, D]``, float32."""

    def mean_image(self) -> Tensor:
        """Return the mean ``[3, H, W]`` of the images, in [0, 1], float64 on the CPU."""


class Scores(NamedTuple):
    """Scores of N images, float32 on the CPU, higher = more anomalous.

    Attributes:
        maps: ``[N, P]`` scores of patches.
        images: ``[N]`` scores of images, by the rival's own rule.
    """

    maps: Tensor
    images: Tensor


class Fit(Protocol):
    """What a rival knows of a category after its training images.

    Attributes:
        training: Scores of these.
    """

    @property
    def training(self) -> Scores: ...  # noqa: D102

    def score(self, features: PatchFeatures) -> Scores:
        """Score other images of the category."""


class Rival(Protocol):
    """A method that makes scores from frozen features; its settings are its fields."""

    def features(self, encoder: FrozenEncoder) -> nn.Module:
        """Return the module that makes its features: images -> ``[B, P, D]``, ``[B, D, h, w]``."""

    def fit(self, features: PatchFeatures, *, group: str, seed: int, progress: bool) -> Fit:
        """Learn a category.

        Args:
            features: Its training images.
            group: Its name; random numbers are keyed by it.
            seed: The run's seed.
            progress: Show a progress bar for what takes long.

        Raises:
            UserError: If the category does not suit the settings.
        """

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` of patches as maps ``[n, H, W]`` of pixels."""


@dataclass(frozen=True)
class TensorFeatures:
    """Features that are at hand.

    Args:
        values: ``[N, P, D]``.
        grid: (h, w).
        image_size: (H, W).
        images: ``[N, 3, H, W]`` in [0, 1], for `mean_image`.
        layers: See `PatchFeatures`.
    """

    values: Tensor
    grid: tuple[int, int]
    image_size: tuple[int, int] = (224, 224)
    images: Tensor | None = None
    layers: tuple[int, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def __len__(self) -> int:
        """Return N."""
        return len(self.values)

    def __iter__(self) -> Iterator[tuple[range, Tensor]]:
        """Yield the features of each image."""
        for image, values in enumerate(self.values.float()):
            yield range(image, image + 1), values[None]

    def mean_image(self) -> Tensor:
        """Return the mean of the images.

        Raises:
            RuntimeError: If there are none.
        """
        if self.images is None:
            msg = "the images are not known"
            raise RuntimeError(msg)
        return self.images.double().mean(0)


def all_features(
    features: PatchFeatures, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return ``[N, P, D]`` features of all images in one tensor.

    Args:
        features: Of N images.
        change: Changes those of a batch first, ``[b, P, D']`` -> ``[b, P, D]``.
    """
    rows: Tensor | None = None
    for places, values in features:
        part = values if change is None else change(values)
        if rows is None:
            rows = part.new_empty(len(features), *part.shape[1:])
        rows[places.start : places.stop] = part
    if rows is None:
        msg = "there are no images"
        raise ValueError(msg)
    return rows
