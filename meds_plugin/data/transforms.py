"""From a decoded image to the tensor a detector takes, without any randomness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    Size: TypeAlias = int | Sequence[int]

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocess"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess:
    """Resize, crop the centre, and normalise.

    Args:
        image_size: Size in pixels to resize to, whatever the image's aspect: one number for a
            square, or height and width.
        crop: Size of the centre that is kept, in the same form; ``None`` keeps all.
        mean: Mean of red, green and blue, for values in [0, 1].
        std: Their standard deviation.

    Attributes:
        image_size: Height and width before the crop.
        input_size: Height and width of the tensors.

    Raises:
        UserError: If a size is no positive number or pair, or the crop is larger than the image.
        ValueError: If ``mean`` or ``std`` are not three numbers, or a deviation is not positive.

    Source: the reference resizes to 448 with Pillow's antialiased bilinear filter and crops 392.
    """

    def __init__(
        self,
        image_size: Size,
        crop: Size | None = None,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            msg = f"mean and std must be three numbers, std > 0; got {mean!r} and {std!r}"
            raise ValueError(msg)
        self.image_size = _pair(image_size, "data.image_size")
        self.input_size = self.image_size if crop is None else _pair(crop, "data.crop")
        height, width = self.image_size
        if self.input_size[0] > height or self.input_size[1] > width:
            msg = (
                f"data.crop={list(self.input_size)} is larger than "
                f"data.image_size={list(self.image_size)} (height, width); "
                "make the crop smaller or the image size larger"
            )
            raise UserError(msg)
        # Rounds half to even like torchvision's centre crop, for the same pixels.
        self._top = round((height - self.input_size[0]) / 2)
        self._left = round((width - self.input_size[1]) / 2)
        self._mean = torch.tensor([float(value) for value in mean]).view(3, 1, 1)
        self._std = torch.tensor([float(value) for value in std]).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into float32 ``[3, H, W]``, normalised."""
        return ((self._pixels(image).permute(2, 0, 1) - self._mean) / self._std).contiguous()

    def mask(self, mask: Image.Image) -> Tensor:
        """Turn a grey mask into float32 ``[H, W]`` in [0, 1] by the same geometry.

        Edges of defects get values in between; the evaluation's mask rule decides on them.
        """
        return self._pixels(mask)

    def _pixels(self, image: Image.Image) -> Tensor:
        height, width = self.image_size
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        bottom, right = self._top + self.input_size[0], self._left + self.input_size[1]
        cropped = resized.crop((self._left, self._top, right, bottom))
        return torch.from_numpy(np.array(cropped)).float() / 255


def _pair(size: object, key: str) -> tuple[int, int]:
    # Any sequence but text: configuration files give lists of a type of their own.
    pair = isinstance(size, Sequence) and not isinstance(size, str)
    values: list[Any] = list(size) if pair else [size, size]  # type: ignore[call-overload]
    if len(values) != 2 or not all(type(value) is int and value > 0 for value in values):
        msg = f"{key} must be a positive whole number or [height, width], got {size!r}"
        raise UserError(msg)
    return values[0], values[1]
