"""The data set a detector is trained and tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from meds_plugin.data.images import read_image, read_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.data.samples import Sample
    from meds_plugin.data.transforms import Preprocess

__all__ = ["ImageDataset", "Item"]


class Item(TypedDict):
    """One image as a data loader sees it."""

    image: Tensor
    index: int


class ImageDataset(Dataset[Item]):
    """Images in a fixed order; the same index always gives the same tensor.

    Args:
        samples: The images.
        preprocess: From a decoded image to a tensor.

    Attributes:
        samples: The images, as given.
        groups: The category of each; statistics are kept per group.
        labels: bool ``[N]``, true for images with a defect.
        preprocess: As given.
    """

    def __init__(self, samples: Sequence[Sample], preprocess: Preprocess) -> None:
        self.samples = list(samples)
        self.preprocess = preprocess
        self.groups = [sample.category for sample in self.samples]
        self.labels = torch.tensor([sample.is_anomaly for sample in self.samples], dtype=torch.bool)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Return ``image`` (float32 ``[3, H, W]``, normalised) and ``index``."""
        image = self.preprocess(read_image(self.samples[index].image))
        return {"image": image, "index": index}

    def mask(self, index: int) -> Tensor | None:
        """Return the mask of one image.

        Returns:
            float32 ``[H, W]`` in [0, 1], higher = defective, all zero for a normal image;
            ``None`` for a defective image that has no mask.
        """
        sample = self.samples[index]
        if not sample.is_anomaly:
            return torch.zeros(self.preprocess.input_size)
        return None if sample.mask is None else self.preprocess.mask(read_mask(sample.mask))
