"""Reads images and masks of any common kind, and finds the unusable ones before training."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from meds_plugin.errors import UserError
from meds_plugin.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meds_plugin.data.samples import Pixels, Sample

__all__ = ["check_samples", "read_image", "read_mask"]

# Only these: Pillow's other readers include some that start external programs.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_NAMED_IN_ERROR = 3


def read_image(source: Path | Pixels) -> Image.Image:
    """Read an image as 8-bit RGB.

    Files are turned as their EXIF data says, grey and palette images become RGB, transparency is
    dropped. 16-bit values are scaled by the range of 16 bits (their high byte is kept); Pillow's
    own conversion would clip all of them to white.

    Args:
        source: PNG, JPEG, BMP, TIFF or WebP file, or uint8 ``[H, W, 3]``.

    Raises:
        UserError: If the file is missing, empty, damaged, too large or of another kind.
        ValueError: If the array has another shape or type.
    """
    if not isinstance(source, Path):
        return Image.fromarray(_checked_array(source, "image"))
    image = _open(source)
    if _is_deep(image):
        return Image.fromarray((_deep_values(image, source) >> 8).astype(np.uint8)).convert("RGB")
    return _to_rgb(image, source)


def read_mask(source: Path | Pixels) -> Image.Image:
    """Read a mask as 8-bit grey, 255 = defective.

    Of several colour channels the largest value counts; transparency is dropped. A mask without
    any value in the upper half of its range is taken as labels, of which every non-zero one is
    defective: a mask of 0 and 1 would be lost otherwise.

    Args:
        source: File as for `read_image`, or uint8 ``[H, W]``.

    Raises:
        UserError: As `read_image`.
        ValueError: As `read_image`.
    """
    if not isinstance(source, Path):
        return _grey(_checked_array(source, "mask"), full=0xFF)
    mask = _open(source)
    if _is_deep(mask):
        return _grey(_deep_values(mask, source), full=0xFFFF)
    if mask.mode in {"1", "L"}:
        return _grey(np.asarray(mask.convert("L")), full=0xFF)
    return _grey(np.asarray(_to_rgb(mask, source)).max(axis=2), full=0xFF)


def check_samples(
    samples: Sequence[Sample], *, workers: int | None = None, progress: bool = True
) -> None:
    """Decode every image and mask once, so that a bad file stops the run before it starts.

    Of samples that hold arrays only shapes and types are checked.

    Args:
        samples: What to check; a file that several samples share is read once.
        workers: Number of threads; ``None`` takes one a core, at most 8.
        progress: Show a bar, if standard error is a terminal.

    Raises:
        UserError: If anything is unusable; one line for all of it.
    """
    unique = {_identity(sample): sample for sample in samples}.values()
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        found = track(
            pool.map(_problem, unique),
            description="check images",
            total=len(unique),
            # Kept out of logs: a wrong input is to give one line there.
            enabled=progress and sys.stderr.isatty(),
        )
        problems = [problem for problem in found if problem]
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        more = len(problems) - _NAMED_IN_ERROR
        named = "; ".join(problems[:_NAMED_IN_ERROR]) + (f"; and {more} more" if more > 0 else "")
        count = f"{len(problems)} image{'s' if len(problems) > 1 else ''}"
        msg = f"{count} cannot be used: {named}; repair or remove what is named"
        raise UserError(msg)


def _identity(sample: Sample) -> tuple[object, object]:
    image, mask = sample.image, sample.mask
    return (
        image if isinstance(image, Path) else id(image),
        mask if isinstance(mask, Path) else id(mask),
    )


def _problem(sample: Sample) -> str | None:
    """Say in one line what is wrong with a sample, ``None`` if nothing."""
    try:
        image = _size(sample.image, "image")
        mask = image if sample.mask is None else _size(sample.mask, "mask")
    except UserError as error:
        return str(error)
    except ValueError as error:
        return _one_line(f"{sample.path}: {error}")
    if image == mask:
        return None
    where = sample.mask if isinstance(sample.mask, Path) else f"the mask of {sample.path}"
    return _one_line(
        f"{where} has {mask[0]}x{mask[1]} pixels (width x height) "
        f"but its image has {image[0]}x{image[1]}"
    )


def _size(source: Path | Pixels, kind: str) -> tuple[int, int]:
    """Return width and height; a file is read in full for it."""
    if isinstance(source, Path):
        return (read_image if kind == "image" else read_mask)(source).size
    height, width = _checked_array(source, kind).shape[:2]
    return width, height


def _checked_array(array: Pixels, kind: str) -> Pixels:
    wanted = "[H, W, 3]" if kind == "image" else "[H, W]"
    fits = array.ndim == 3 and array.shape[2] == 3 if kind == "image" else array.ndim == 2
    if not fits or array.dtype != np.uint8 or 0 in array.shape:
        msg = f"the {kind} must be uint8 {wanted}, got {array.dtype} {list(array.shape)}"
        raise ValueError(msg)
    return array


def _open(path: Path) -> Image.Image:
    """Decode a file completely and turn it upright."""
    try:
        if path.stat().st_size > 0:
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise _unusable(path, "does not exist") from error
    except Image.DecompressionBombError as error:
        raise _unusable(path, f"is too large to be decoded safely ({error})") from error
    except UnidentifiedImageError as error:
        raise _unusable(path, "is corrupt or no PNG, JPEG, BMP, TIFF or WebP image") from error
    except Exception as error:  # decoders fail in any way on a damaged file
        raise _unusable(path, f"is corrupt or unreadable ({error!r})") from error
    raise _unusable(path, "is empty (zero bytes)")


def _is_deep(image: Image.Image) -> bool:
    """Whether pixels are grey with more than 8 bits; colour Pillow reduces to 8 by itself."""
    return image.mode == "F" or image.mode.startswith("I")


def _deep_values(image: Image.Image, path: Path) -> NDArray[Any]:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise _unusable(path, "has 32-bit pixels of unknown range; save it with 8 or 16 bits")
    return values


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    try:
        if image.mode in {"P", "PA"}:  # straight to RGB warns about some transparent palettes
            image = image.convert("RGBA")
        return image.convert("RGB")
    except ValueError as error:
        raise _unusable(path, f"has colours of kind {image.mode}; save it as RGB") from error


def _grey(values: NDArray[Any], *, full: int) -> Image.Image:
    if values.max() <= full // 2:
        return Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))
    return Image.fromarray((values >> 8 if full > 0xFF else values).astype(np.uint8))


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(_one_line(f"{path} {reason}"))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
