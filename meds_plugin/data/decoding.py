"""Decodes an image file, or says in one line why it cannot be used."""

from __future__ import annotations

import contextlib
import re
import stat
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from meds_plugin.data.faults import failure, shown
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

__all__ = ["MAX_PIXELS", "Decoded", "checked_limit", "decode", "unreadable", "unusable"]

MAX_PIXELS = 100_000_000

_ORIENTATION = 0x0112
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS = 256, 258, 259, 262, 277
_PLANAR, _TILE_WIDTH, _EXTRA_CHANNELS, _SAMPLE_FORMAT = 284, 322, 338, 339
_RGB, _FLOAT, _PLANES = 2, 3, 2


class _Tiff(TiffImageFile):
    """A TIFF file of whose metadata only the orientation is read: the rest may be broken.

    Attributes:
        channels: Number of channels that lie side by side in a row of ``F`` pixels.
    """

    channels = 1

    def _setup(self) -> None:
        """Read uncompressed RGB of floats as wide grey: Pillow has no mode for it."""
        tags, bits = self.tag_v2, self.tag_v2.get(_BITS, ())
        floats = set(tags.get(_SAMPLE_FORMAT, ())) == {_FLOAT} and tags.get(_PHOTOMETRIC) == _RGB
        plain = all(tags.get(tag, 1) == 1 for tag in (_COMPRESSION, _PLANAR, _ORIENTATION))
        if floats and plain and len(bits) > 2 and _TILE_WIDTH not in tags:
            self.channels = len(bits)
            tags[_WIDTH] *= self.channels
            tags[_BITS], tags[_SAMPLE_FORMAT], tags[_CHANNELS] = bits[:1], (_FLOAT,), 1
            tags[_PHOTOMETRIC] = 1
            tags.pop(_EXTRA_CHANNELS, None)
        elif tags.get(_PLANAR) == _PLANES and len(bits) > 1 and max(bits) > 8:
            # Pillow would mix up their bytes.
            msg = "unknown pixel mode: planes of more than 8 bits"
            raise SyntaxError(msg)
        super()._setup()

    def getexif(self) -> Image.Exif:
        """Return the orientation only; Pillow asks for all of it while decoding."""
        exif = Image.Exif()
        if (orientation := self.tag_v2.get(_ORIENTATION)) is not None:
            exif[_ORIENTATION] = orientation
        return exif


# Pillow's own `open` has a second limit, and tries readers that start other programs.
_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", _Tiff),
    (b"MM\0*", _Tiff),
    (b"II+\0", _Tiff),
    (b"MM\0+", _Tiff),
    (b"RIFF", WebPImageFile),
    (b"GIF8", GifImageFile),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Jpeg2KImageFile),
    (b"\xff\x4f\xff\x51", Jpeg2KImageFile),
    *((b"P%d" % kind, PpmImageFile) for kind in range(1, 7)),
)
_KINDS = "PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 image"
_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # byte orders
_HEADER = 30  # bytes; enough for the size of a WebP image

_HUGE = 50_000_000  # pixels; below Pillow's own limit
_huge_lock = threading.Lock()

# About odd metadata, which changes no pixel: two lines per file and worker.
warnings.filterwarnings("ignore", module=r"PIL\.(Tiff|Png)ImagePlugin")


class Decoded(NamedTuple):
    """A decoded image file.

    Attributes:
        image: The first image in the file, upright, in Pillow's mode for it.
        bits: Bits per value in the file: 1, 8, 12, 16 or 32. 2 and 4 bits, which Pillow scales to
            8, count as 8.
        inverted: Whether the highest value means black, where Pillow has not inverted it.
        colours: ``[H, W, 3]``: colours of floats, of which ``image`` holds only the size, or those
            of 16 bits, where they were asked for, of which it holds the highest 8.
    """

    image: Image.Image
    bits: int
    inverted: bool
    colours: NDArray[Any] | None = None


def decode(path: Path, *, max_pixels: int = MAX_PIXELS, all_bits: bool = False) -> Decoded:
    """Decode a file completely and turn it upright.

    The content decides the format, not the name. Of several images in a file (pages, frames) the
    first is taken. EXIF data that cannot be read is ignored.

    Args:
        path: PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 file.
        max_pixels: Larger images, by the size in the header, are refused.
        all_bits: Decode 16-bit colours twice, to have their lowest 8 bits, too.

    Raises:
        UserError: If the file is missing, unreadable, damaged, too large or of another kind.
    """
    try:
        # Opening a pipe would block until somebody writes to it.
        if stat.S_ISREG(path.stat().st_mode):
            return _decode(path, max_pixels, all_bits=all_bits)
        what = "a folder" if path.is_dir() else "a pipe or a device"
    except UserError:
        raise
    except OSError as error:
        # Those of decoders have no number.
        reason = _damage(error) if error.errno is None else failure(path, error)
        raise unusable(path, reason) from error
    except Exception as error:  # decoders raise anything on a damaged file
        raise unusable(path, _damage(error)) from error
    raise unusable(path, f"is {what}, not a file: rename or remove it")


def checked_limit(max_pixels: object, *, key: str = "data.max_pixels") -> int:
    """Return a limit on the number of pixels as an integer.

    Args:
        max_pixels: The limit.
        key: Its name on the command line.

    Raises:
        UserError: If it is not a number of at least 1.
    """
    if not is_number(max_pixels) or not 1 <= max_pixels < float("inf"):
        msg = f"{key} must be a number of pixels of at least 1, got {max_pixels!r}"
        raise UserError(msg)
    return int(max_pixels)


def unusable(path: Path, reason: str) -> UserError:
    """Return the error that says in one line what is wrong with a file."""
    return UserError(" ".join(f"{shown(str(path))} {reason}".splitlines()))


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that failed in an unforeseen way, such as lack of memory."""
    cause = str(error) or type(error).__name__
    return unusable(path, f"cannot be read ({cause}): check its disk and free memory")


def _decode(path: Path, max_pixels: int, *, all_bits: bool) -> Decoded:
    with path.open("rb") as file:
        head = file.read(_HEADER)
        reader = next((reader for magic, reader in _READERS if head.startswith(magic)), None)
        if not head:
            raise unusable(path, "is empty (zero bytes): replace or remove it")
        if reader is None:
            reason = f"is not a {_KINDS}, whatever its name says: convert or remove it"
            raise unusable(path, reason)
        file.seek(0)
        size = _webp_size(head)  # its reader allocates the pixels at once
        image = None if size else reader(file)
        channels = image.channels if isinstance(image, _Tiff) else 1
        width, height = size or image.size  # type: ignore[union-attr]
        width //= channels
        pixels = width * height
        if pixels > max_pixels:
            msg = (
                f"has {width}x{height} pixels, more than data.max_pixels={max_pixels}: "
                f"make it smaller, or allow it with data.max_pixels={pixels}"
            )
            raise unusable(path, msg)
        with _without_pillows_limit() if pixels > _HUGE else contextlib.nullcontext():
            image = image or reader(file)
            bits, inverted = _bits(image), _is_inverted(image)
            image.load()
            if channels > 1:
                floats = np.asarray(image).reshape(height, width, channels)[..., :3]
                return Decoded(Image.new("RGB", (width, height)), bits, inverted, floats)
            upright, colours = _upright(image), None
            if all_bits and bits == 16 and not image.mode.startswith("I"):
                file.seek(0)
                both = (upright, _upright(_lowest_bits(reader(file))))
                high, low = (np.asarray(each.convert("RGB"), np.uint16) for each in both)
                colours = high << 8 | low
        return Decoded(upright, bits, inverted, colours)


def _lowest_bits(image: ImageFile) -> ImageFile:
    """Decode colours in the wrong byte order: of 16 bits, Pillow takes what it holds the highest 8.

    There is no such order of grey with alpha, which gives its highest 8 bits again.
    """
    for place, tile in enumerate(image.tile):
        layout: Any = tile.args
        raw, *rest = [layout] if isinstance(layout, str) else layout
        swapped = raw[:-1] + _OTHER[raw[-1]] if raw.startswith("RGB") else raw
        image.tile[place] = tile._replace(args=(swapped, *rest) if rest else swapped)
    image.load()
    return image


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lift Pillow's limit, which is global, for one image at a time, which also saves memory."""
    with _huge_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP image; ``None`` for other files and broken headers."""
    kind = head[12:16] if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else b""
    if len(head) < _HEADER:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(head[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return width, height
    return None


def _bits(image: ImageFile) -> int:
    if image.mode == "1":
        return 1
    if image.mode == "F" or (image.mode == "I" and image.format not in {"PNG", "PPM"}):
        return 32
    layout: Any = image.tile[0][3] if image.tile else ""
    raw = str(layout if isinstance(layout, str) else layout[0])
    if ";12" in raw:
        return 12
    # In a BMP file, three colours share the 16 bits.
    deep = image.mode.startswith("I") or (";16" in raw and image.format != "BMP")
    return 16 if deep else 8


def _is_inverted(image: ImageFile) -> bool:
    """Whether 0 is white; up to 8 bits, Pillow inverts such files itself."""
    deep = image.mode[:1] in {"I", "F"}
    return deep and isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # broken in any way: the pixels are all there
        return image
    return image if method is None else image.transpose(method)


def _damage(error: Exception) -> str:
    cause = str(error) if str(error).strip() else type(error).__name__
    if re.search(r"unknown pixel mode|unsupported|not (yet )?supported|not available", cause, re.I):
        return f"is of an unsupported kind ({cause}): save it as PNG or plain TIFF, or remove it"
    return f"is cut off or damaged ({cause}): replace or remove it"
