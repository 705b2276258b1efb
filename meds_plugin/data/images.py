"""Reads images and masks in any common format as 8-bit pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from meds_plugin.data.decoding import MAX_PIXELS, Decoded, decode, unusable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meds_plugin.data.samples import Pixels

__all__ = ["checked_array", "read_image", "read_mask", "to_mask", "to_rgb"]


def read_image(source: Path | Pixels, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as 8-bit RGB, in its EXIF orientation.

    Pixels are converted as follows:

    * 1-bit and grey images get three equal channels, palette images their palette's colours.
    * Alpha is dropped: a transparent pixel shows its stored colour.
    * CMYK, YCbCr and Lab become RGB by Pillow's formulas; embedded colour profiles are ignored.
    * 16 and 12 bits are reduced to their highest 8.
    * 32-bit integers count as 16 bits if the largest is in 256..65535, floats as shares of white
      if all are in [0, 1]. Others are refused: one image does not tell their range.
    * The first of several pages or frames is taken.

    Args:
        source: PNG, JPEG, BMP, TIFF or WebP file, or uint8 ``[H, W, 3]``.
        max_pixels: Larger files are refused.

    Raises:
        UserError: If the file is missing, empty, damaged, too large or in another format.
        ValueError: If the array has another shape or type.
    """
    if isinstance(source, Path):
        return to_rgb(decode(source, max_pixels=max_pixels), source)
    return Image.fromarray(checked_array(source, "image"))


def read_mask(source: Path | Pixels, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a mask as 8-bit grey, 255 = defective.

    The largest of several channels counts; otherwise as `read_image`. A mask without any value in
    the upper half of its range, such as one of 0 and 1, holds labels: non-zero ones are defective.

    Args:
        source: File as for `read_image`, or uint8 ``[H, W]``.
        max_pixels: As for `read_image`.

    Raises:
        UserError: As `read_image`.
        ValueError: As `read_image`.
    """
    if isinstance(source, Path):
        return to_mask(decode(source, max_pixels=max_pixels), source)
    return _labelled(checked_array(source, "mask"), top=255)


def to_rgb(decoded: Decoded, path: Path) -> Image.Image:
    """Convert a decoded file to 8-bit RGB (see `read_image`).

    Raises:
        UserError: If its pixel format is not supported.
    """
    image = decoded.image
    if image.mode == "RGB":
        return image
    if _is_deep(image):
        values, top = _deep_values(decoded, path)
        if decoded.bits == 32 and image.mode != "F" and 0 < values.max() < 256:
            reason = "has 32-bit pixels of at most 8 bits, so white is unknown: save it with 8 bits"
            raise unusable(path, reason)
        return Image.fromarray(_eight_bits(values, top)).convert("RGB")
    # Pillow would warn about some values, or convert to RGBA first.
    image.info.pop("transparency", None)
    try:
        return image.convert("RGB")
    except Exception as error:  # such as a conversion that this build lacks
        msg = f"has colours of kind {image.mode} ({error}): save it as RGB"
        raise unusable(path, msg) from error


def to_mask(decoded: Decoded, path: Path) -> Image.Image:
    """Convert a decoded file to an 8-bit grey mask (see `read_mask`).

    Raises:
        UserError: As `to_rgb`.
    """
    image = decoded.image
    if _is_deep(image):
        return _labelled(*_deep_values(decoded, path))
    if image.mode in {"1", "L"}:
        return _labelled(np.asarray(image.convert("L")), top=255)
    return _labelled(np.asarray(to_rgb(decoded, path)).max(axis=2), top=255)


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


def _is_deep(image: Image.Image) -> bool:
    """Whether pixels are grey with more than 8 bits; Pillow reduces colours to 8 itself."""
    return image.mode == "F" or image.mode.startswith("I")


def _deep_values(decoded: Decoded, path: Path) -> tuple[NDArray[Any], int]:
    """Return the values and the upper end of their range, which begins at 0."""
    values = np.asarray(decoded.image)
    if decoded.image.mode == "F":
        top = 1
        fits = bool(values.min() >= 0 and values.max() <= 1)  # false if one is NaN
        what = "floating-point pixels outside 0..1"
    else:
        top = 0xFFF if decoded.bits == 12 else 0xFFFF
        fits = bool(values.min() >= 0 and values.max() <= top)
        what = "32-bit pixels of unknown range"
    if not fits:
        raise unusable(path, f"has {what}: save it with 8 or 16 bits")
    return top - values if decoded.inverted else values, top


def _eight_bits(values: NDArray[Any], top: int) -> Pixels:
    scaled = np.rint(values * 255) if top == 1 else values >> (top.bit_length() - 8)
    return np.asarray(scaled, np.uint8)


def _labelled(values: NDArray[Any], top: int) -> Image.Image:
    if values.max() <= top / 2:
        return Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))
    return Image.fromarray(values if top == 255 else _eight_bits(values, top))
