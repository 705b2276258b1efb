"""A scene without defects: a turned steel gear on a plain ground."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from meds_plugin.data.synthetic.canvas import Canvas, Pose
from meds_plugin.data.synthetic.shapes import Shape, disc, smoothstep

if TYPE_CHECKING:
    from meds_plugin.data.synthetic.shapes import Floats

__all__ = ["gear"]

TEETH = 14

_GROUND = np.array((0.60, 0.635, 0.66), np.float32)
_STEEL = np.array((0.985, 1.0, 1.02), np.float32)


def gear(size: int, rng: np.random.Generator) -> tuple[Canvas, Pose]:
    """Return a turned steel gear on a plain light ground."""
    canvas = Canvas(size)
    pose = Pose.random(rng, shift=0.012, angle=0.05, scale=0.008)
    body, shade, radius, theta = _relief(size)

    ground = 1.0 + 0.012 * canvas.noise(rng, 60) + 0.012 * canvas.noise(rng, 3)
    canvas.rgb = ground[..., None] * _GROUND
    canvas.tint(disc(0.514, 0.522, 0.355), (0.42,) * 3, soft=0.05)
    canvas.bare = canvas.rgb.copy()

    # Lathe marks are rings; they reflect light in two fans that do not turn with the gear.
    marks = rng.normal(size=400).astype(np.float32)
    rings = np.interp(radius, np.linspace(0, 0.8, 400), marks).astype(np.float32)
    fan = np.cos(theta + np.float32(pose.angle + 0.9 + 0.05 * rng.normal())) ** 2
    steel = (
        0.50 + 0.20 * fan * fan * fan + 0.022 * rings * (0.6 + fan) + 0.01 * canvas.noise(rng, 120)
    )
    steel = steel * shade * (1.0 + 0.03 * rng.normal())
    canvas.rgb += body[..., None] * (steel[..., None] * _STEEL - canvas.rgb)
    canvas.print_number("2047", 0.5, 0.655, 0.042, (0.24, 0.24, 0.25))
    canvas.solid = Shape((0.0, 0.0, 1.0, 1.0), _distance)
    canvas.parts = [_teeth((index + 0.5) * 2 * np.pi / TEETH) for index in range(TEETH)]
    return canvas, pose


def _distance(px: Floats, py: Floats) -> Floats:
    dx, dy = px - 0.5, py - 0.5
    radius, theta = np.hypot(dx, dy), np.arctan2(dy, dx)
    tooth = np.clip(1.7 * np.cos(TEETH * theta) + 0.15, -1.0, 1.0)
    distance = 0.8 * (radius - (0.382 + 0.037 * tooth))
    hole = np.abs((theta / (2 * np.pi) * 6 + 0.5) % 1.0 - 0.5) * (2 * np.pi / 6)
    hole_distance = np.hypot(radius * np.cos(hole) - 0.225, radius * np.sin(hole)) - 0.048
    bore = np.minimum(radius - 0.07, np.maximum(np.abs(dx) - 0.02, np.abs(dy + 0.07) - 0.025))
    return np.asarray(np.maximum(distance, np.maximum(-hole_distance, -bore)), np.float32)


@lru_cache(maxsize=2)
def _relief(size: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return silhouette, light on the relief, radius and angle, each ``[n, n]``."""
    canvas = Canvas(size)
    distance = _distance(canvas.x, canvas.y)
    dx, dy = canvas.x - 0.5, canvas.y - 0.5
    radius, theta = np.hypot(dx, dy), np.arctan2(dy, dx)
    height = 0.010 * smoothstep(np.asarray(-distance / 0.014))
    height += 0.009 * smoothstep((0.125 - radius) / 0.010)
    height -= 0.006 * smoothstep((0.008 - np.abs(radius - 0.315)) / 0.006)
    down, across = np.gradient(height, canvas.pixel)
    shade = np.clip(1.0 - 0.55 * (across * 0.6 + down * 0.8), 0.35, 1.6)
    body = smoothstep(np.asarray(0.5 - distance / canvas.pixel))
    return body, shade.astype(np.float32), radius, theta


def _teeth(angle: float) -> Shape:
    """Return the two teeth beside `angle`, down to their roots."""
    reach = 2 * np.pi / TEETH
    x, y = 0.5 + 0.385 * np.cos(angle), 0.5 + 0.385 * np.sin(angle)

    def distance(px: Floats, py: Floats) -> Floats:
        dx, dy = px - 0.5, py - 0.5
        radius, theta = np.hypot(dx, dy), np.arctan2(dy, dx)
        off = np.abs((theta - angle + np.pi) % (2 * np.pi) - np.pi)
        inside = np.maximum((off - reach) * radius, 0.352 - radius)
        return np.asarray(np.maximum(inside, _distance(px, py)), np.float32)

    return Shape((x - 0.16, y - 0.16, x + 0.16, y + 0.16), distance)
