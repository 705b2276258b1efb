"""Made-up pictures of a product: the same parts in the same places, each with its own marks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def picture(seed: int, *, kind: int = 0, side: int = 96) -> Image.Image:
    """Return a picture in RGB; those of a kind show the same product."""
    part, own = np.random.default_rng(1000 + kind), np.random.default_rng(seed)
    shape = Image.fromarray(part.integers(40, 200, (5, 5, 3)).astype(np.uint8))
    marks = Image.fromarray(own.integers(0, 256, (12, 12)).astype(np.uint8))
    grain = own.normal(0, 4, (side, side, 1))
    pixels = np.asarray(shape.resize((side, side), Image.Resampling.BICUBIC), float)
    pixels = pixels + 0.2 * np.asarray(marks.resize((side, side)), float)[..., None] + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def again(image: Image.Image, seed: int) -> Image.Image:
    """Return the same picture taken once more: a little brighter, shifted, with other noise."""
    shifted = image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0.6, 0, 1, -0.4))
    noise = np.random.default_rng(seed).normal(6, 3, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(shifted, float) + noise, 0, 255).astype(np.uint8))


def blurred(image: Image.Image) -> Image.Image:
    """Return it out of focus."""
    return image.filter(ImageFilter.GaussianBlur(3))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Return it under more or less light."""
    return image.point(lambda value: value * factor)
