"""From a decoded image to the tensor a detector takes, without any randomness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.data.samples import Variation
    from meds_plugin.encoders.normalization import Normalization

    Size: TypeAlias = int | Sequence[int]

__all__ = ["Preprocess", "vary"]


class Preprocess:
    """Resize, crop the centre, and normalise.

    The whole image is brought to ``image_size``, whatever its aspect; nothing is padded. Masks go
    the same way, by the bilinear filter.

    Args:
        image_size: Size in pixels to resize to: one number for a square, or height and width.
        crop: Size of the centre that is kept, in the same form; ``None`` keeps all.
        normalization: What the detector's encoder was trained with: mean, deviation, and the
            filter that resizes images (Pillow's, antialiased).

    Attributes:
        image_size: Height and width before the crop.
        input_size: Height and width of the tensors.
        offset: Row and column of the resized image at which the crop begins.
        normalization: As given; may be changed.

    Raises:
        UserError: If a size is no positive number or pair, or the crop is larger than the image.

    Source: the reference resizes to 448 with Pillow's antialiased bilinear filter and crops 392.
    """

    def __init__(
        self,
        image_size: Size,
        crop: Size | None = None,
        *,
        normalization: Normalization = IMAGENET,
    ) -> None:
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
        top = round((height - self.input_size[0]) / 2)
        left = round((width - self.input_size[1]) / 2)
        self.offset = (top, left)
        self.normalization = normalization

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of what the crop keeps, as shares of the image."""
        height, width = self.image_size
        top, left = self.offset
        right, bottom = left + self.input_size[1], top + self.input_size[0]
        return left / width, top / height, right / width, bottom / height

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into float32 ``[3, H, W]``, normalised."""
        kind = Image.Resampling[self.normalization.interpolation.upper()]
        resized = self._resized(image, kind)
        channels = np.stack([np.asarray(channel) for channel in resized.split()])
        return self.normalization.apply(torch.from_numpy(channels).float().div_(255))

    def mask(self, mask: Image.Image) -> Tensor:
        """Turn a grey mask into float32 ``[H, W]`` in [0, 1] by the same geometry.

        Edges of defects get values in between; the evaluation's mask rule decides on them.
        """
        resized = self._resized(mask, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).float().div_(255)

    def _resized(self, image: Image.Image, kind: Image.Resampling) -> Image.Image:
        height, width = self.image_size
        resized = image.resize((width, height), kind)
        top, left = self.offset
        return resized.crop((left, top, left + self.input_size[1], top + self.input_size[0]))


def vary(image: Image.Image, variation: Variation) -> Image.Image:
    """Turn an image and scale it about its centre; its size stays.

    Values between pixels are interpolated linearly. What lies beyond the edges is the image again,
    reflected, so that no black corners tell a varied image from others.

    Args:
        image: 8-bit, of any size.
        variation: The turn and the scale, which must be positive.
    """
    width, height = image.size
    turn = math.radians(variation.turn)
    # From a place in the result, relative to the centre, to its place in the image.
    cos, sin = math.cos(turn) / variation.scale, math.sin(turn) / variation.scale
    reach_x = (abs(cos) * width + abs(sin) * height - width) / 2
    reach_y = (abs(sin) * width + abs(cos) * height - height) / 2
    x, y = (max(0, math.ceil(reach)) + 1 for reach in (reach_x, reach_y))
    pixels = np.asarray(image)
    beyond = [(y, y), (x, x), (0, 0)][: pixels.ndim]
    wide = Image.fromarray(np.pad(pixels, beyond, mode="symmetric"))
    start_x = x + (width - cos * width + sin * height) / 2
    start_y = y + (height - sin * width - cos * height) / 2
    matrix = (cos, -sin, start_x, sin, cos, start_y)
    return wide.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


def _pair(size: object, key: str) -> tuple[int, int]:
    # Any sequence but text: configuration files give lists of a type of their own.
    pair = isinstance(size, Sequence) and not isinstance(size, str)
    values: list[Any] = list(size) if pair else [size, size]  # type: ignore[call-overload]
    if len(values) != 2 or not all(type(value) is int and value > 0 for value in values):
        msg = f"{key} must be a positive whole number or [height, width], got {size!r}"
        raise UserError(msg)
    return values[0], values[1]
