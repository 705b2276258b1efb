"""Reads images in any common format as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from meds_plugin.data.decoding import MAX_PIXELS, Decoded, decode, unusable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meds_plugin.data.samples import Pixels

    # Values of black and white; None: those of the file's kind.
    ValueRange: TypeAlias = tuple[float, float] | None

__all__ = ["Levels", "checked_array", "deep_levels", "read_image", "to_rgb"]


class Levels(NamedTuple):
    """Pixels of more than 8 bits.

    Attributes:
        values: ``[H, W]``, or ``[H, W, 3]`` for colours, higher = brighter.
        black: The value of black; lower ones are black, too.
        white: The value of white; likewise.
    """

    values: NDArray[Any]
    black: float
    white: float

    def eight_bits(self) -> Pixels:
        """Return them as uint8: integers by their highest bits, floats rounded."""
        span = self.white - self.black
        if np.issubdtype(self.values.dtype, np.floating):
            clipped = np.clip(self.values, self.black, self.white)
            scaled = np.rint((clipped - self.black) * (255 / span))
        else:
            clipped = np.clip(self.values.astype(np.float64), self.black, self.white)
            scaled = (clipped - self.black) * (256 / (span + 1))
        pixels: Pixels = scaled.astype(np.uint8)
        return pixels


def read_image(
    source: Path | Pixels, *, max_pixels: int = MAX_PIXELS, value_range: ValueRange = None
) -> Image.Image:
    """Read an image as 8-bit RGB, in its EXIF orientation.

    Pixels are converted as follows:

    * 1-bit and grey images get three equal channels, palette images their palette's colours.
    * Alpha is dropped: a transparent pixel shows its stored colour.
    * CMYK, YCbCr and Lab become RGB by Pillow's formulas; embedded colour profiles are ignored.
    * 16 and 12 bits are reduced to their highest 8.
    * 32-bit integers count as 16 bits if the largest is in 256..65535, floats as shares of white
      if all are in [0, 1]. Others are refused: one image does not tell their range.
    * With a range, all images of more than 8 bits are scaled by it, and clipped.
    * The first of several pages or frames is taken.

    Args:
        source: PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 file, or uint8 ``[H, W, 3]``.
        max_pixels: Larger files are refused.
        value_range: The values of black and white of files with more than 8 bits.

    Raises:
        UserError: If the file is missing, empty, damaged, too large or in another format.
        ValueError: If the array has another shape or type.
    """
    if isinstance(source, Path):
        decoded = decode(source, max_pixels=max_pixels, all_bits=value_range is not None)
        return to_rgb(decoded, source, value_range)
    return Image.fromarray(checked_array(source, "image"))


def to_rgb(decoded: Decoded, path: Path, value_range: ValueRange = None) -> Image.Image:
    """Convert a decoded file to 8-bit RGB (see `read_image`).

    Raises:
        UserError: If its pixel format is not supported.
    """
    levels = deep_levels(decoded, path, value_range)
    if levels is not None:
        small = decoded.bits == 32 and np.issubdtype(levels.values.dtype, np.integer)
        if small and value_range is None and 0 < levels.values.max() < 256:
            reason = "has 32-bit pixels of at most 8 bits, so white is unknown: save it with 8 bits"
            raise unusable(path, reason)
        return Image.fromarray(levels.eight_bits()).convert("RGB")
    image = decoded.image
    if image.mode == "RGB":
        return image
    # Pillow would warn about some values, or convert to RGBA first.
    image.info.pop("transparency", None)
    try:
        return image.convert("RGB")
    except Exception as error:  # such as a conversion that this build lacks
        msg = f"has the colour mode {image.mode} ({error}): save it as RGB"
        raise unusable(path, msg) from error


def checked_array(array: Pixels, kind: str) -> Pixels:
    """Return an array if it is a valid image or mask.

    Args:
        array: The pixels.
        kind: ``image`` or ``mask``.

    Raises:
        ValueError: If its shape or type is wrong.
    """
    wanted = "[H, W, 3]" if kind == "image" else "[H, W]"
    fits = array.ndim == 3 and array.shape[2] == 3 if kind == "image" else array.ndim == 2
    if not fits or array.dtype != np.uint8 or 0 in array.shape:
        msg = f"the {kind} must be uint8 {wanted}, got {array.dtype} {list(array.shape)}"
        raise ValueError(msg)
    return array


def deep_levels(decoded: Decoded, path: Path, value_range: ValueRange = None) -> Levels | None:
    """Return pixels of more than 8 bits; ``None`` if Pillow gives 8.

    Args:
        decoded: The file.
        path: Where it lies, for messages.
        value_range: Values of black and white; ``None``: those of the file's kind.

    Raises:
        UserError: If pixels lie outside the range of their kind.
    """
    values = decoded.colours
    if values is None:
        if decoded.image.mode != "F" and not decoded.image.mode.startswith("I"):
            return None
        values = np.asarray(decoded.image)
    if np.issubdtype(values.dtype, np.floating):
        black, white = value_range or (0.0, 1.0)
        what = "floating-point pixels outside 0..1"
    else:
        black, white = value_range or (0, 0xFFF if decoded.bits == 12 else 0xFFFF)
        what = "32-bit pixels of unknown range"
    if value_range is None:
        fits = bool(values.min() >= black and values.max() <= white)  # false if one is NaN
    else:
        fits, what = bool(np.isfinite(values).all()), "pixels that are not numbers"
    if not fits:
        advice = "save it with 8 or 16 bits, or for images give data.range=[LOW,HIGH]"
        raise unusable(path, f"has {what}: {advice}")
    if decoded.inverted:
        values = black + white - np.clip(values, black, white)
    return Levels(values, black, white)
