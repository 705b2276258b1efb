"""Regions of the plane as signed distances: what a `Canvas` paints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.floating[Any]]

__all__ = ["EVERYWHERE", "Shape", "blob", "box", "disc", "smoothstep", "stroke"]


@dataclass(frozen=True)
class Shape:
    """A region of the plane.

    Attributes:
        bounds: ``(x0, y0, x1, y1)``; nothing is drawn outside.
        distance: Takes x ``[1, w]`` and y ``[h, 1]``, gives the signed distance to the outline
            ``[h, w]``, negative inside; only near the outline need it be a true distance.
    """

    bounds: tuple[float, float, float, float]
    distance: Callable[[Floats, Floats], Floats]

    def grown(self, by: float) -> Shape:
        """Return the shape with its outline moved out by `by`."""
        return Shape(self._reach(by), lambda x, y: self.distance(x, y) - np.float32(by))

    def moved(self, dx: float, dy: float) -> Shape:
        """Return the shape elsewhere."""
        x0, y0, x1, y1 = self.bounds
        return Shape(
            (x0 + dx, y0 + dy, x1 + dx, y1 + dy), lambda x, y: self.distance(x - dx, y - dy)
        )

    def rim(self, width: float) -> Shape:
        """Return a band along the outline."""
        half = np.float32(width / 2)
        return Shape(self._reach(width / 2), lambda x, y: np.abs(self.distance(x, y)) - half)

    def within(self, other: Shape) -> Shape:
        """Return the part of the shape that lies in `other`."""
        return Shape(
            self.bounds, lambda x, y: np.maximum(self.distance(x, y), other.distance(x, y))
        )

    def _reach(self, by: float) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = self.bounds
        return x0 - by, y0 - by, x1 + by, y1 + by


EVERYWHERE = Shape((-1.0, -1.0, 2.0, 2.0), lambda x, y: -1.0 + 0.0 * (x + y))


def smoothstep(values: Floats) -> Floats:
    """Ease from 0 to 1 over the unit interval."""
    clipped = np.clip(values, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)


def disc(x: float, y: float, radius: float) -> Shape:
    """Return a disc."""
    bounds = (x - radius, y - radius, x + radius, y + radius)
    return Shape(bounds, lambda px, py: np.hypot(px - x, py - y) - radius)


def box(
    x: float, y: float, width: float, height: float, *, angle: float = 0.0, corner: float = 0.0
) -> Shape:
    """Return a rectangle around ``(x, y)``, turned by `angle`, with rounded corners."""
    cos, sin = np.cos(angle), np.sin(angle)
    half_x, half_y = width / 2 - corner, height / 2 - corner

    def distance(px: Floats, py: Floats) -> Floats:
        u = np.abs((px - x) * cos + (py - y) * sin) - half_x
        v = np.abs((py - y) * cos - (px - x) * sin) - half_y
        outside = np.hypot(np.maximum(u, 0.0), np.maximum(v, 0.0))
        return np.asarray(outside + np.minimum(np.maximum(u, v), 0.0) - corner, np.float32)

    reach_x = (abs(cos) * width + abs(sin) * height) / 2
    reach_y = (abs(sin) * width + abs(cos) * height) / 2
    return Shape((x - reach_x, y - reach_y, x + reach_x, y + reach_y), distance)


def stroke(points: NDArray[Any], width: ArrayLike) -> Shape:
    """Return a line through `points` ``[n, 2]``, `width` wide (one value, or one per point)."""
    radii = np.broadcast_to(np.asarray(width, np.float32) / 2, len(points))
    low, high = points.min(axis=0) - radii.max(), points.max(axis=0) + radii.max()

    def distance(px: Floats, py: Floats) -> Floats:
        nearest = np.full(np.broadcast_shapes(px.shape, py.shape), 9.0, np.float32)
        for (ax, ay), (bx, by), ra, rb in zip(points, points[1:], radii, radii[1:], strict=False):
            dx, dy = float(bx - ax), float(by - ay)
            along = ((px - float(ax)) * dx + (py - float(ay)) * dy) / (dx * dx + dy * dy + 1e-12)
            along = np.clip(along, 0.0, 1.0)
            gap = np.hypot(px - float(ax) - along * dx, py - float(ay) - along * dy)
            np.minimum(nearest, gap - float(ra) - along * float(rb - ra), out=nearest)
        return nearest

    return Shape((low[0], low[1], high[0], high[1]), distance)


def blob(
    x: float,
    y: float,
    radius: float,
    rng: np.random.Generator,
    *,
    rough: float = 0.2,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Shape:
    """Return a disc with a random wavy outline (`rough` = relative height of the waves)."""
    waves = np.arange(2, 8)
    heights = rough * rng.normal(size=waves.size) / waves**0.7
    phases = rng.uniform(0, 2 * np.pi, waves.size)
    cos, sin = np.cos(angle), np.sin(angle)

    def distance(px: Floats, py: Floats) -> Floats:
        u = ((px - x) * cos + (py - y) * sin) / stretch
        v = ((py - y) * cos - (px - x) * sin) * stretch
        theta = np.arctan2(v, u)
        edge = np.ones_like(theta)
        for wave, height, phase in zip(waves, heights, phases, strict=True):
            edge += height * np.cos(wave * theta + phase)
        return np.asarray(np.hypot(u, v) - radius * np.clip(edge, 0.35, 2.0), np.float32)

    reach = 2.0 * radius * max(stretch, 1.0 / stretch)
    return Shape((x - reach, y - reach, x + reach, y + reach), distance)
