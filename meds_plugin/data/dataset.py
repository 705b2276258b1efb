"""The data set that a detector is trained or tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from meds_plugin.data.decoding import MAX_PIXELS, checked_limit
from meds_plugin.data.images import read_image
from meds_plugin.data.masks import read_mask
from meds_plugin.data.transforms import apply_variation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from meds_plugin.data.masks import MaskValues
    from meds_plugin.data.samples import Sample
    from meds_plugin.data.transforms import Preprocess
    from meds_plugin.encoders.normalization import Normalization

__all__ = ["ImageDataset", "Item"]


class Item(TypedDict):
    """One image as a data loader returns it."""

    image: Tensor
    index: int


class ImageDataset(Dataset[Item]):
    """Images in a fixed order; the same index always gives the same tensor.

    Args:
        samples: The images. Those with a variation are rotated and scaled by it, masks included.
        preprocess: Turns a decoded image into a tensor, and says how deep files are decoded.
        max_pixels: Larger files are refused.
        mask_values: How masks are read (see `to_mask`).
        clusters: Which images count as one in memories and selection; default: each on its own.

    Attributes:
        augments: False: reading an image again gives the same tensor.
        samples: The images, as given.
        groups: The group of each; images are selected within their group.
        categories: The category of each; metrics and memories are per category.
        views: The camera view of each, or ``None``.
        clusters: As given, or ``None``.
        injected: Whether a noise protocol added it; ``None``: unknown. For reports only, never for
            training.
        labels: bool ``[N]``, true = defective.
        preprocess: As given.

    Raises:
        UserError: If ``max_pixels`` is not a number of at least 1; on access, if an image cannot be
            read.
    """

    augments = False

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        max_pixels: int = MAX_PIXELS,
        mask_values: MaskValues = "auto",
        clusters: Sequence[int] | None = None,
    ) -> None:
        self.samples = list(samples)
        self.preprocess = preprocess
        self.groups = [sample.group for sample in self.samples]
        self.categories = [sample.category for sample in self.samples]
        self.views = [sample.view for sample in self.samples]
        self.clusters = clusters
        self.injected = [sample.injected for sample in self.samples]
        self.labels = torch.tensor([sample.is_anomaly for sample in self.samples], dtype=torch.bool)
        self._max_pixels = checked_limit(max_pixels)
        self._mask_values = mask_values

    @property
    def normalization(self) -> Normalization:
        """How the images are normalised; it must be what the detector expects."""
        return self.preprocess.normalization

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Return ``image`` (float32 ``[3, H, W]``, normalised) and ``index``."""
        return {"image": self.preprocess(self.rgb_image(index)), "index": index}

    def rgb_image(self, index: int) -> Image.Image:
        """Return an image in RGB, before it is resized, cropped and normalised."""
        sample = self.samples[index]
        value_range = self.preprocess.value_range
        image = read_image(sample.image, max_pixels=self._max_pixels, value_range=value_range)
        return _varied(image, sample)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> Tensor | None:
        """Return the mask of an image.

        Args:
            index: Which image.
            size: Height and width to which the whole mask is resized; default: as the image is
                resized and cropped.

        Returns:
            float32 ``[H, W]`` in [0, 1], higher = defective, all zero for a normal image;
            ``None`` for a defective image that has no mask.
        """
        sample = self.samples[index]
        if not sample.is_anomaly:
            return torch.zeros(size or self.preprocess.input_size)
        if sample.mask is None:
            return None
        mask = read_mask(sample.mask, values=self._mask_values, max_pixels=self._max_pixels)
        return self.preprocess.mask(_varied(mask, sample), size)


def _varied(image: Image.Image, sample: Sample) -> Image.Image:
    return image if sample.variation is None else apply_variation(image, sample.variation)
