"""Reads masks however they tell the defect: by grey values, labels, a palette, or transparency."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import numpy as np
from PIL import Image, ImageChops, ImageOps

from meds_plugin.data.decoding import MAX_PIXELS, decode, unusable
from meds_plugin.data.images import Levels, checked_array, deep_levels, to_rgb
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meds_plugin.data.decoding import Decoded
    from meds_plugin.data.samples import Pixels

__all__ = [
    "MaskReading",
    "MaskValues",
    "array_to_mask",
    "checked_mask_values",
    "read_mask",
    "to_mask",
]

MaskValues = Literal["auto", "nonzero", "half", "alpha", "inverted"]

_NOISE = 32  # compression changes black and white by less
_DARK = 8  # no colour channel of black is above it
# Grey pixels for each step of an outline: those of compression, of any resampling.
_COMPRESSED, _RESAMPLED = 4, 8
_NO_ALPHA = "no transparency, which data.mask_values=alpha takes for the mask"


class MaskReading(NamedTuple):
    """What was read from a mask.

    Attributes:
        image: 8-bit grey, 255 = defective.
        doubt: What is not certain about it, said of several masks ("hold ..."); ``None``: nothing.
    """

    image: Image.Image
    doubt: str | None = None


def read_mask(
    source: Path | Pixels | tuple[Path, ...],
    *,
    values: MaskValues = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Read a mask as 8-bit grey, 255 = defective; see `to_mask`.

    Args:
        source: File as for `read_image`, or uint8 ``[H, W]``, or files of which each is read by
            itself: the mask is the largest value of each pixel.
        values: Which values are defective (see `to_mask`).
        max_pixels: As for `read_image`.

    Raises:
        UserError: As `read_image`, if the file has no transparency and ``values`` is ``alpha``, or
            if several files differ in size.
        ValueError: As `read_image`, or if there is no file.
    """
    if isinstance(source, tuple):
        return _union(source, values, max_pixels)
    if isinstance(source, Path):
        return to_mask(decode(source, max_pixels=max_pixels), source, values).image
    return array_to_mask(checked_array(source, "mask"), values).image


def to_mask(decoded: Decoded, path: Path, values: MaskValues = "auto") -> MaskReading:
    """Convert a decoded file to a mask.

    ``auto`` takes

    * the transparency, where it varies and not both black and other colours are visible;
    * the indices of a palette without black, where 0 is the background;
    * otherwise the largest of the colours, or their saturation where nothing is dark.

    What that gives are labels, of which all but 0 are defective, if none is in the upper half of
    their range. Otherwise grey values stay as they are, but for compression noise, which is cut at
    half. Labels beside 255 are defective, and 255, which labels a region to ignore, is not.

    Args:
        decoded: The file.
        path: Where it lies, for messages.
        values: ``auto``; ``nonzero``, all but 0; ``half``, those above half of a mask's largest;
            ``alpha``, the transparency whatever the colours; ``inverted``, the opposite of
            ``auto``.

    Raises:
        UserError: As `to_rgb`, or if there is no transparency and ``values`` is ``alpha``.
    """
    if values == "alpha" and not _has_alpha(decoded.image):
        raise unusable(path, f"has {_NO_ALPHA}")
    lossy = decoded.image.format == "JPEG"
    return _reading(_levels(decoded, path, values), values, lossy=lossy)


def array_to_mask(array: Pixels, values: MaskValues = "auto") -> MaskReading:
    """Do as `to_mask` with uint8 ``[H, W]``.

    Raises:
        UserError: If ``values`` is ``alpha``.
    """
    if values == "alpha":
        msg = f"an array has {_NO_ALPHA}"
        raise UserError(msg)
    return _reading(Levels(array, 0, 255), values)


def checked_mask_values(values: object) -> MaskValues:
    """Return the setting ``data.mask_values``, if it is valid.

    Raises:
        UserError: If it is not.
    """
    if values not in get_args(MaskValues):
        known = ", ".join(get_args(MaskValues))
        msg = f"data.mask_values must be one of {known}, got {values!r}"
        raise UserError(msg)
    return cast("MaskValues", values)


def _union(files: tuple[Path, ...], values: MaskValues, max_pixels: int) -> Image.Image:
    if not files:
        msg = "a mask of several files needs at least one"
        raise ValueError(msg)
    union, *others = (read_mask(file, values=values, max_pixels=max_pixels) for file in files)
    for file, part in zip(files[1:], others, strict=True):
        if part.size != union.size:
            sizes = "{}x{} pixels, unlike the {}x{} of".format(*part.size, *union.size)
            raise unusable(file, f"has {sizes} {files[0].name}: give both one size")
        union = ImageChops.lighter(union, part)
    return union


def _reading(levels: Levels, values: MaskValues, *, lossy: bool = False) -> MaskReading:
    if values == "nonzero":
        return MaskReading(_binary(levels.values > 0))
    if values == "half":
        return MaskReading(_binary(levels.values > levels.values.max() / 2))
    reading = _by_values(levels, lossy=lossy)
    if values == "inverted":
        return reading._replace(image=ImageOps.invert(reading.image))
    return reading


def _levels(decoded: Decoded, path: Path, values: MaskValues) -> Levels:
    """Return what tells the defect: the higher, the more."""
    deep = deep_levels(decoded, path)
    if deep is not None and deep.values.ndim == 2:
        return deep
    image = decoded.image
    alpha = None
    if _has_alpha(image):
        pixels = np.asarray(image.convert("RGBA"))
        alpha = pixels[..., 3]
        if values == "alpha" or _tells_all(alpha, pixels[..., :3]):
            return Levels(alpha, 0, 255)
        alpha = alpha if np.ptp(alpha) else None
    if image.mode == "P" and alpha is None:
        indices, colours = np.asarray(image), np.zeros((256, 3), np.uint8)
        listed = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        colours[: len(listed)] = listed
        dark = (colours[np.unique(indices)] <= _DARK).all(axis=1)
        if values == "nonzero" or not dark.any():
            return Levels(indices, 0, math.inf)  # labels, however many
    if image.mode in {"1", "L"} and alpha is None:
        return Levels(np.asarray(image.convert("L")), 0, 255)
    colours = np.asarray(to_rgb(decoded, path))
    highest, saturation = colours.max(axis=2), np.ptp(colours, axis=2)
    # Such as red on white, where compression may darken a few.
    if 100 * np.count_nonzero(highest < 128) < highest.size and np.ptp(saturation) > 127:
        highest = saturation
    if alpha is not None:  # what cannot be seen marks nothing
        highest = (highest.astype(np.uint16) * alpha // 255).astype(np.uint8)
    return Levels(highest, 0, 255)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info


def _tells_all(alpha: Pixels, colours: Pixels) -> bool:
    """Whether transparency alone is the mask: no black background is visible among colours."""
    if alpha.min() == alpha.max():
        return not alpha.any() and not np.ptp(colours, axis=(0, 1)).any()
    dark = (colours[alpha >= alpha.max() / 2] <= _DARK).all(axis=1)
    return bool(dark.all() or not dark.any())


def _by_values(levels: Levels, *, lossy: bool) -> MaskReading:
    """Decide which levels are defective."""
    values = levels.values
    lowest, highest = values.min(), values.max()
    if 0 < lowest < highest and ((values == lowest) | (values == highest)).all():
        doubt = "hold two values, neither of them 0: the higher is taken as defective"
        return MaskReading(_binary(values == highest), doubt)
    if highest <= levels.white / 2:
        return MaskReading(_binary(values > 0))
    pixels = values if levels.white == 255 else levels.eight_bits()
    top = int(pixels.max())
    counts = np.bincount(pixels.ravel(), minlength=256)
    grey, low, high = counts[1:top].sum(), counts[1:_NOISE].sum(), counts[-_NOISE:top].sum()
    if grey == low > 0 and counts[0] and _regions(pixels, below=_NOISE):
        doubt = "hold labels and 255, which is taken as a region to ignore, not as defective"
        return MaskReading(_binary((pixels > 0) & (pixels < _NOISE)), doubt)
    middle = grey - low - high
    noisy = lossy or low + high > 2 * middle  # resampling gives as many of one as of the other
    if noisy and middle <= _COMPRESSED * _outline(pixels > top / 2):
        return MaskReading(_binary(pixels > top / 2))
    soft = grey > _RESAMPLED * _outline(pixels > 0)
    return MaskReading(
        Image.fromarray(pixels), "hold grey values away from edges" if soft else None
    )


def _regions(pixels: Pixels, *, below: int) -> bool:
    """Whether most pixels of small values are like their neighbours, as noise is not."""
    small = (pixels > 0) & (pixels < below)
    like = (pixels[:-1, :-1] == pixels[1:, :-1]) & (pixels[:-1, :-1] == pixels[:-1, 1:])
    return bool(2 * np.count_nonzero(like & small[:-1, :-1]) > np.count_nonzero(small))


def _outline(inside: NDArray[np.bool_]) -> int:
    """Count the steps of the outline of a region: neighbours of which one is inside."""
    across = np.count_nonzero(inside[1:] != inside[:-1])
    return int(across + np.count_nonzero(inside[:, 1:] != inside[:, :-1]))


def _binary(defective: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(defective.astype(np.uint8) * np.uint8(255))
