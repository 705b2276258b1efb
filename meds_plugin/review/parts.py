"""Thumbnails and heatmaps as text, in parts that the page decodes when it shows them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meds_plugin.review.store import ReviewImages

__all__ = ["PART", "base64_length", "image_parts", "text_size"]

PART = 32  # images that share a part


def base64_length(count: int) -> int:
    """Return the number of characters that so many bytes take."""
    return 4 * ((count + 2) // 3)


def text_size(images: ReviewImages) -> int:
    """Return the number of characters of all parts together, but for some of padding."""
    maps = 0 if images.heatmaps is None else images.heatmaps.values.size
    return base64_length(maps) + sum(base64_length(len(each.data)) for each in images.thumbnails)


def image_parts(images: ReviewImages, order: Sequence[int]) -> Iterator[str]:
    """Yield the parts: thumbnails in base64, one after the other, then all heatmaps in base64.

    Args:
        images: The images, in the manifest's order.
        order: Their order in the parts.
    """
    for start in range(0, len(order), PART):
        part = order[start : start + PART]
        texts = [base64.b64encode(images.thumbnails[index].data) for index in part]
        if images.heatmaps is not None:
            maps = np.ascontiguousarray(images.heatmaps.values[part]).tobytes()
            texts.append(base64.b64encode(maps))
        yield b"".join(texts).decode()
