"""Turns a decoded image into the tensor that a detector takes; deterministic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from meds_plugin.data.images import ValueRange
    from meds_plugin.data.samples import Variation
    from meds_plugin.encoders.normalization import Normalization

    Size: TypeAlias = int | Sequence[int]

__all__ = ["Preprocess", "apply_variation", "height_and_width"]


class Preprocess:
    """Resizes, crops the centre, and normalises.

    The whole image is resized to ``image_size``, regardless of aspect ratio, without padding. Masks
    are treated the same way, with the bilinear filter.

    Args:
        image_size: Size in pixels to resize to: one number for a square, or height and width.
        crop: Size of the centre crop, in the same form; ``None``: no crop.
        normalization: What the detector's encoder was trained with: mean, standard deviation, and
            the filter that resizes images (Pillow's, antialiased).
        value_range: Values of black and white in files of more than 8 bits (see `read_image`).

    Attributes:
        image_size: Height and width before the crop.
        input_size: Height and width of the tensors.
        offset: Row and column of the resized image at which the crop begins.
        normalization: As given; may be replaced.
        value_range: Likewise. It is applied where files are read, before all else.

    Raises:
        UserError: If a size is not a positive number or pair, or the crop is larger than the image.

    Source: the reference resizes to 448 with Pillow's antialiased bilinear filter and crops 392.
    """

    def __init__(
        self,
        image_size: Size,
        crop: Size | None = None,
        *,
        normalization: Normalization = IMAGENET,
        value_range: ValueRange = None,
    ) -> None:
        self.value_range = value_range
        self.image_size = height_and_width(image_size, "data.image_size")
        self.input_size = self.image_size if crop is None else height_and_width(crop, "data.crop")
        height, width = self.image_size
        if self.input_size[0] > height or self.input_size[1] > width:
            msg = (
                f"data.crop={list(self.input_size)} is larger than "
                f"data.image_size={list(self.image_size)} (height, width); "
                "make the crop smaller or the image size larger"
            )
            raise UserError(msg)
        # Rounds half to even, for the same pixels as torchvision's centre crop.
        top = round((height - self.input_size[0]) / 2)
        left = round((width - self.input_size[1]) / 2)
        self.offset = (top, left)
        self.normalization = normalization

    @property
    def window(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of the crop, as shares of the image."""
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

    def mask(self, mask: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
        """Turn a grey mask into float32 ``[H, W]`` in [0, 1], resized and cropped alike.

        Edges of defects get values in between; the evaluation's mask rule decides them.

        Args:
            mask: 8-bit.
            size: Height and width to resize the whole mask to instead.
        """
        kind = Image.Resampling.BILINEAR
        resized = mask.resize(size[::-1], kind) if size else self._resized(mask, kind)
        return torch.from_numpy(np.array(resized)).float().div_(255)

    def _resized(self, image: Image.Image, kind: Image.Resampling) -> Image.Image:
        height, width = self.image_size
        resized = image.resize((width, height), kind)
        top, left = self.offset
        return resized.crop((left, top, left + self.input_size[1], top + self.input_size[0]))


def apply_variation(image: Image.Image, variation: Variation) -> Image.Image:
    """Rotate an image and scale it about its centre, without changing its size.

    Interpolation is bilinear. Beyond its edges the image is reflected, so that no black corners
    give a varied image away.

    Args:
        image: 8-bit, of any size.
        variation: Rotation and scale; the scale must be positive.
    """
    width, height = image.size
    turn = math.radians(variation.turn)
    # Maps a point of the result, relative to the centre, to a point of the image.
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


def height_and_width(size: object, key: str) -> tuple[int, int]:
    """Return a size in pixels as height and width.

    Args:
        size: One number for a square, or height and width.
        key: The setting, for the message.

    Raises:
        UserError: If it is not a positive number or pair.
    """
    values: list[Any] = list(size) if is_list(size) else [size, size]
    if len(values) != 2 or not all(type(value) is int and value > 0 for value in values):
        msg = f"{key} must be a positive whole number or [height, width], got {size!r}"
        raise UserError(msg)
    return values[0], values[1]
