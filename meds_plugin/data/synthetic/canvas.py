"""A canvas to draw a product on, with a camera above it.

Coordinates are those of the image's unit square (x to the right, y down), so that a scene looks the
same at every size. The canvas has twice the resolution and a border; `Canvas.photograph` turns and
shifts it a little, scales it down and adds light, blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from meds_plugin.data.synthetic.shapes import EVERYWHERE, smoothstep, stroke

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from meds_plugin.data.samples import Pixels
    from meds_plugin.data.synthetic.shapes import Floats, Shape

__all__ = ["Canvas", "Pose"]

OVERSAMPLING = 2
MARGIN = 0.1  # border on each side, as a share of the image, that a `Pose` may bring into view
_MASK_LEVEL = 0.35  # share of a pixel that a defect must cover to count

_SEGMENTS = (
    "abcdef",
    "bc",
    "abged",
    "abgcd",
    "fgbc",
    "afgcd",
    "afgedc",
    "abc",
    "abcdefg",
    "abcdfg",
)
_ENDS = {"a": (0, 0, 1, 0), "b": (1, 0, 1, 1), "c": (1, 1, 1, 2), "d": (0, 2, 1, 2)}
_ENDS |= {"e": (0, 1, 0, 2), "f": (0, 0, 0, 1), "g": (0, 1, 1, 1)}


@dataclass(frozen=True)
class Pose:
    """How the product lies under the camera: shift in image widths, angle in radians."""

    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    scale: float = 1.0

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, shift: float, angle: float, scale: float = 0.0
    ) -> Pose:
        """Sample a pose uniformly within plus or minus the given limits."""
        dx, dy, turn, zoom = rng.uniform(-1.0, 1.0, 4)
        return cls(shift * dx, shift * dy, angle * turn, 1.0 + scale * zoom)


class Canvas:
    """An image being drawn, and the mask of its defects.

    Attributes:
        rgb: Colours in [0, 1], float32 ``[n, n, 3]``.
        mask: How far each point belongs to a defect, in [0, 1], float32 ``[n, n]``.
        bare: What lies below the topmost layer, shaped like `rgb`: shows where a part is missing.
        solid: The product; surface defects do not extend beyond it.
        parts: Parts that can be missing, if any.
        spots: Where neighbouring pins can be bridged, if anywhere: x, y and direction of the row.
        axis: Coordinates of the ``n`` columns (and rows).

    Args:
        size: Side of the finished image in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixel = 1.0 / (OVERSAMPLING * size)
        n = OVERSAMPLING * size + 2 * int(np.ceil(MARGIN / self.pixel))
        self.axis: Floats = ((np.arange(n) + 0.5 - n / 2) * self.pixel + 0.5).astype(np.float32)
        self.rgb: Floats = np.zeros((n, n, 3), np.float32)
        self.mask: Floats = np.zeros((n, n), np.float32)
        self.bare: Floats = self.rgb
        self.solid = EVERYWHERE
        self.parts: list[Shape] = []
        self.spots: list[tuple[float, float, float]] = []

    @property
    def x(self) -> Floats:
        """Column coordinates ``[1, n]``."""
        return self.axis[None, :]

    @property
    def y(self) -> Floats:
        """Row coordinates ``[n, 1]``."""
        return self.axis[:, None]

    def cover(self, shape: Shape, soft: float = 0.0) -> tuple[tuple[slice, slice], Floats]:
        """Return the window around `shape` and its coverage of each point there, in [0, 1].

        Args:
            shape: The region.
            soft: Width of the edge; never less than a point, so that edges are anti-aliased.
        """
        edge = max(soft, self.pixel)
        x0, y0, x1, y1 = shape.bounds
        xs = slice(*np.searchsorted(self.axis, (x0 - edge, x1 + edge)))
        ys = slice(*np.searchsorted(self.axis, (y0 - edge, y1 + edge)))
        distance = shape.distance(self.axis[None, xs], self.axis[ys, None])
        return (ys, xs), smoothstep(np.asarray(0.5 - distance / edge, np.float32))

    def paint(
        self,
        shape: Shape,
        colour: ArrayLike,
        *,
        opacity: float | Floats = 1.0,
        soft: float = 0.0,
    ) -> None:
        """Lay a colour over `shape`; colour and opacity may be arrays ``[n, n, ...]``."""
        window, weight = self._weight(shape, opacity, soft)
        target = np.asarray(colour, np.float32)
        target = target[window] if target.ndim > 1 else target
        self.rgb[window] += weight * (target - self.rgb[window])

    def tint(
        self,
        shape: Shape,
        factor: ArrayLike,
        *,
        opacity: float | Floats = 1.0,
        soft: float = 0.0,
    ) -> None:
        """Multiply the colours under `shape` by `factor`, as a stain or a shadow does."""
        window, weight = self._weight(shape, opacity, soft)
        change = np.asarray(factor, np.float32) - 1.0
        self.rgb[window] *= 1.0 + weight * change

    def _weight(
        self, shape: Shape, opacity: float | Floats, soft: float
    ) -> tuple[tuple[slice, slice], Floats]:
        """Return the window around `shape` and each point's opacity, ``[rows, columns, 1]``."""
        window, cover = self.cover(shape, soft)
        opacity = opacity[window] if isinstance(opacity, np.ndarray) else opacity
        return window, (opacity * cover)[..., None]

    def print_number(self, text: str, x: float, y: float, height: float, colour: ArrayLike) -> None:
        """Print a number around ``(x, y)`` in seven-segment figures."""
        half = height / 2
        left = x - 0.55 * half * (1.45 * len(text) - 0.45)
        for place, digit in enumerate(text):
            for name in _SEGMENTS[int(digit)]:
                ends = np.reshape(_ENDS[name], (2, 2)) * half
                corner = np.array([[left + place * half * 1.6, y - half]])
                self.paint(stroke(ends + corner, height * 0.16), colour)

    def mark(self, shape: Shape, soft: float = 0.0) -> None:
        """Add `shape` to the mask."""
        window, cover = self.cover(shape, soft)
        np.maximum(self.mask[window], cover, out=self.mask[window])

    def noise(self, rng: np.random.Generator, across: float, down: float | None = None) -> Floats:
        """Return smooth random values ``[n, n]`` with a standard deviation of about 1.

        It is less where bumps are finer than the canvas.

        Args:
            rng: The source of randomness.
            across: Number of bumps over the width of the image.
            down: The same over its height; default: as `across`.
        """
        n = len(self.axis)
        share = n * self.pixel
        cells = [max(2, round(share * count)) + 3 for count in (down or across, across)]
        grid = rng.normal(size=cells).astype(np.float32)
        # Without the outermost cells, which would be extrapolated.
        inner = (1.5, 1.5, cells[1] - 1.5, cells[0] - 1.5)
        image = Image.fromarray(grid).resize((n, n), Image.Resampling.BICUBIC, box=inner)
        return np.asarray(image, np.float32)

    def photograph(self, pose: Pose, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Return the image and the mask as the camera sees them.

        Args:
            pose: How the product lies; the mask moves along.
            rng: For light, gain, white balance, focus and sensor noise; used alike whatever is on
                the canvas.

        Returns:
            Image uint8 ``[size, size, 3]`` and mask uint8 ``[size, size]`` of 0 and 255.
        """
        levels = (np.clip(self.rgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        view = self._view(Image.fromarray(levels), pose).astype(np.float32) / 255.0
        mask = np.zeros((self.size, self.size), np.uint8)
        if self.mask.any():
            cover = self._view(Image.fromarray((self.mask * 255.0).astype(np.uint8)), pose)
            level = min(255 * _MASK_LEVEL, cover.max() / 2)  # even a hair leaves a mask
            mask[(cover > 0) & (cover >= level)] = 255
        return _camera(view, rng), mask

    def _view(self, image: Image.Image, pose: Pose) -> Pixels:
        side = OVERSAMPLING * self.size
        cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
        centre, middle = len(self.axis) / 2, side / 2
        u, v = middle + pose.dx * side, middle + pose.dy * side
        matrix = (cos, sin, centre - cos * u - sin * v, -sin, cos, centre + sin * u - cos * v)
        view = image.transform(
            (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        return np.asarray(view.reduce(OVERSAMPLING))


def _camera(image: Floats, rng: np.random.Generator) -> Pixels:
    size = len(image)
    gain = 1.0 + 0.035 * rng.normal()
    balance = 1.0 + 0.005 * rng.normal(size=3)
    slope = np.array([0.10, 0.07]) + 0.025 * rng.normal(size=2)  # the lamp hangs to one side
    focus = rng.uniform(0.25, 0.55) * np.sqrt(size / 128)
    grain = rng.normal(size=image.shape).astype(np.float32)

    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    light = 1.04 - slope[0] * axis[None, :] - slope[1] * axis[:, None]
    light -= 0.22 * (axis[None, :] ** 2 + axis[:, None] ** 2)
    if focus > 0.2:  # a smaller kernel is a single pixel
        image = ndimage.gaussian_filter(image, (focus, focus, 0), truncate=3.0)
    image = image * (gain * light[..., None] * balance).astype(np.float32)
    # Shot noise grows with the light; the constant is read-out noise.
    image += grain * np.sqrt(2.5e-5 + 9e-5 * np.clip(image, 0.0, 1.0))
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
