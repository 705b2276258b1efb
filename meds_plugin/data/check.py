"""Decodes every image and mask once before training; reports those that cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from meds_plugin.data.decoding import MAX_PIXELS, checked_limit, decode, unreadable
from meds_plugin.data.faults import shown, writable
from meds_plugin.data.images import checked_array, to_rgb
from meds_plugin.data.masks import array_to_mask, to_mask
from meds_plugin.data.samples import Problem
from meds_plugin.faults.measure import measure_image
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meds_plugin.data.decoding import Decoded
    from meds_plugin.data.images import ValueRange
    from meds_plugin.data.masks import MaskReading, MaskValues
    from meds_plugin.data.samples import Pixels, Sample
    from meds_plugin.faults.measure import Look

    Key: TypeAlias = tuple[Path | int, str]

__all__ = [
    "CheckReport",
    "ImageFacts",
    "MaskFacts",
    "check_samples",
    "content_digest",
    "image_key",
    "libtiff_silenced",
]


@dataclass(frozen=True)
class ImageFacts:
    """Properties of a usable image.

    Attributes:
        width: In pixels, after EXIF orientation.
        height: Likewise.
        mode: Pillow's mode of the file; ``RGB`` for an array.
        bits: Bits per value (see `Decoded`).
        digest: BLAKE2b of the file's bytes, or of an array's shape and values, in hexadecimal.
        look: What it looks like.
        largest: The largest value in a file of 16 bits a value; ``None`` for others.
    """

    width: int
    height: int
    mode: str
    bits: int
    digest: str
    look: Look = field(compare=False, repr=False)
    largest: int | None = None


@dataclass(frozen=True)
class MaskFacts:
    """Properties of a usable mask, as it was read.

    Attributes:
        width: In pixels, after EXIF orientation.
        height: Likewise.
        share: Share of defective pixels.
        border: That of the outermost pixels.
        doubt: See `MaskReading`.
    """

    width: int
    height: int
    share: float
    border: float
    doubt: str | None


@dataclass(frozen=True)
class CheckReport:
    """The result of `check_samples`.

    Attributes:
        problems: All problems, in the order of the samples; a sample may have several. Paths are
            those of the samples, with escapes for what is not UTF-8.
        unusable: Paths of all samples with a problem, exactly as the samples give them.
        images: Properties of each usable image, by its file or the ``id`` of its array.
        masks: Those of each usable mask, likewise.
        arrays: The arrays, kept alive so that no other gets the same ``id``.
    """

    problems: list[Problem]
    unusable: frozenset[str]
    images: Mapping[Path | int, ImageFacts]
    masks: Mapping[Path | int, MaskFacts]
    arrays: tuple[Pixels, ...] = ()

    def facts_of(self, sample: Sample) -> ImageFacts | None:
        """Return the properties of a sample's image; ``None`` if it is unusable or unchecked."""
        return self.images.get(image_key(sample.image))


def check_samples(
    samples: Sequence[Sample],
    *,
    max_pixels: int = MAX_PIXELS,
    mask_values: MaskValues = "auto",
    value_range: ValueRange = None,
) -> CheckReport:
    """Decode every image and mask once, so that bad files are known before training.

    A file that several samples share is read once. Every size from 1x1 pixel up is usable. A
    progress bar is shown if standard error is a terminal.

    Args:
        samples: What to check.
        max_pixels: Larger images and masks are problems.
        mask_values: How masks are read (see `to_mask`).
        value_range: How images of more than 8 bits are read (see `read_image`).

    Returns:
        All problems: files that are missing, unreadable, damaged, too large or of another kind,
        and masks of another size than their image; and the properties of the others.

    Raises:
        UserError: If ``max_pixels`` is not a number of at least 1.
    """
    limit = checked_limit(max_pixels)
    sources: dict[Key, Path | Pixels] = {}
    for sample in samples:
        sources[image_key(sample.image), "image"] = sample.image
        sources.update({(image_key(mask), "mask"): mask for mask in sample.mask_parts})
    # Not in logs: there, wrong input is to give one line.
    shows = sys.stderr.isatty()
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    with libtiff_silenced(sources.values()):
        try:
            how = (limit, mask_values, value_range)
            answers = pool.map(lambda key: _facts(sources[key], key[1], *how), sources)
            bar = track(answers, description="check images", total=len(sources), enabled=shows)
            results = dict(zip(sources, bar, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
    # A dict: the same file in training and test is one problem.
    found = {(s.path, reason): None for s in samples for reason in _reasons(s, results)}
    return CheckReport(
        problems=[Problem(writable(path), reason) for path, reason in found],
        unusable=frozenset(path for path, _ in found),
        images={k[0]: facts for k, facts in results.items() if isinstance(facts, ImageFacts)},
        masks={k[0]: facts for k, facts in results.items() if isinstance(facts, MaskFacts)},
        arrays=tuple(source for source in sources.values() if not isinstance(source, Path)),
    )


def image_key(source: Path | Pixels) -> Path | int:
    """Return the key of an image in `CheckReport.images`."""
    return source if isinstance(source, Path) else id(source)


def _facts(
    source: Path | Pixels,
    kind: str,
    max_pixels: int,
    mask_values: MaskValues,
    value_range: ValueRange,
) -> ImageFacts | MaskFacts | str:
    """Return the properties of an image or mask, or what is wrong with it."""
    try:
        if not isinstance(source, Path):
            array = checked_array(source, kind)
            if kind == "mask":
                return _mask_facts(array_to_mask(array, mask_values))
            height, width = array.shape[:2]
            digest = content_digest(repr(source.shape).encode() + source.tobytes())
            look = measure_image(Image.fromarray(array))
            return ImageFacts(width, height, "RGB", 8, digest, look)
        decoded = decode(source, max_pixels=max_pixels)
        if kind == "mask":
            return _mask_facts(to_mask(decoded, source, mask_values))
        mode, bits = decoded.image.mode, decoded.bits
        look = measure_image(to_rgb(decoded, source, value_range), mode, bits)
        digest = content_digest(source.read_bytes())
    except UserError as error:
        return str(error)
    except Exception as error:
        return str(unreadable(source, error) if isinstance(source, Path) else error)
    return ImageFacts(look.width, look.height, mode, bits, digest, look, _largest(decoded))


def _mask_facts(reading: MaskReading) -> MaskFacts:
    image, doubt = reading
    defective = np.asarray(image) > 0
    edges = (defective[0], defective[-1], defective[:, 0], defective[:, -1])
    border = float(np.concatenate(edges).mean())
    return MaskFacts(image.width, image.height, float(defective.mean()), border, doubt)


def _largest(decoded: Decoded) -> int | None:
    """Return the largest value of 16 bits; of colours, only the highest 8 bits are known."""
    if decoded.bits != 16 and decoded.image.mode != "I":
        return None
    image = decoded.image
    if image.mode.startswith("I"):
        return int(np.asarray(image).max())
    return int(np.asarray(image.convert("RGB")).max()) << 8 | 0xFF


def content_digest(content: bytes) -> str:
    """Return the BLAKE2b digest of 16 bytes, in hexadecimal, that manifests hold."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _reasons(sample: Sample, results: Mapping[Key, ImageFacts | MaskFacts | str]) -> Iterator[str]:
    """Yield what is wrong with a sample, one line each."""
    name = shown(sample.path)
    image = results[image_key(sample.image), "image"]
    if isinstance(image, str):
        yield image if isinstance(sample.image, Path) else f"{name}: {image}"
    for part in sample.mask_parts:
        mask = results[image_key(part), "mask"]
        where = shown(str(part)) if isinstance(part, Path) else f"the mask of {name}"
        if isinstance(mask, str):
            yield mask if isinstance(part, Path) else f"{where}: {mask}"
        elif not isinstance(image, str) and _size(mask) != _size(image):
            yield (
                f"{where} has {_size(mask)} pixels (width x height) "
                f"but its image has {_size(image)}: give it a mask of the image's size"
            )


def _size(facts: ImageFacts | MaskFacts) -> str:
    return f"{facts.width}x{facts.height}"


@contextlib.contextmanager
def libtiff_silenced(sources: Iterable[Path | Pixels]) -> Iterator[None]:
    """Suppress libtiff's messages about damaged files, which bypass `sys.stderr`.

    Args:
        sources: What will be read; without a TIFF file, nothing is done.
    """
    tiff = any(isinstance(s, Path) and s.suffix.lower() in {".tif", ".tiff"} for s in sources)
    try:
        shared = sys.stderr.fileno() == 2  # the progress bar goes there and must stay
        screen = os.dup(2) if tiff else None
    except (AttributeError, OSError, ValueError):  # no such output, or it is closed
        screen = None
    if screen is None:
        yield
        return
    terminal = os.fdopen(screen, "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    with terminal, Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            with contextlib.redirect_stderr(terminal) if shared else contextlib.nullcontext():
                yield
        finally:
            os.dup2(screen, 2)
