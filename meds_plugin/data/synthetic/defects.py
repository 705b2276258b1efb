"""Defects: each draws itself on a `Canvas` and marks itself in the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from meds_plugin.data.synthetic.canvas import Canvas
from meds_plugin.data.synthetic.shapes import Shape, blob, box, disc, stroke

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLAWS", "Flaw", "Place"]

Colour: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Place:
    """Where and how a defect appears.

    Attributes:
        x: Centre, in the image's unit square.
        y: Centre.
        angle: Direction in radians.
        size: About 1; lengths and widths are multiplied by it.
        strength: How visible it is, in (0, 1].
        mode: Which of its kind's recurring defects it is: 0, 1 or 2.
        lot: Random in [0, 1), the same for all modes of a kind.
        shape: Generates the form; in the same state for all images of one recurring defect, so
            that a crack keeps its zigzag.
        vary: Generates what differs from image to image.
    """

    x: float
    y: float
    angle: float
    size: float
    strength: float
    mode: int
    lot: float
    shape: np.random.Generator
    vary: np.random.Generator

    @property
    def centre(self) -> NDArray[np.float64]:
        """The centre as a row ``[1, 2]``."""
        return np.array([[self.x, self.y]])

    def pick(self, count: int) -> int:
        """Choose one of `count` things, another for each mode."""
        return (int(self.lot * count) + self.mode * max(1, count // 3)) % count

    def line(self, length: float, points: int, jag: float) -> NDArray[np.float64]:
        """Return a wandering line ``[points, 2]`` through the centre, along the direction."""
        along = np.linspace(-0.5, 0.5, points) * length * self.size
        off = np.cumsum(self.shape.normal(size=points)) * jag * length * self.size
        off = (off - np.linspace(off[0], off[-1], points)) / np.sqrt(points)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        line = np.stack([along * cos - off * sin, along * sin + off * cos], axis=1)
        return np.asarray(self.centre + line)

    def patch(self, radius: float, rough: float, stretch: float = 1.0) -> Shape:
        """Return a wavy disc at the centre."""
        radius *= self.size
        return blob(
            self.x, self.y, radius, self.shape, rough=rough, stretch=stretch, angle=self.angle
        )


Flaw: TypeAlias = Callable[[Canvas, Place], None]


def scratch(canvas: Canvas, place: Place, *, core: Colour, edge: Colour) -> None:
    """A deep groove and one or two fine ones beside it, one flank lit and the other dark."""
    points = place.line(place.shape.uniform(0.30, 0.42), 11, jag=0.05)
    normal = np.array([[-np.sin(place.angle), np.cos(place.angle)]])
    grooves = [(points, 0.018)]
    for side in (-1.0, 1.0)[: int(place.shape.integers(1, 3))]:
        first = int(place.shape.integers(0, 4))
        gap = side * place.shape.uniform(0.022, 0.034) * place.size
        gap += 0.002 * place.vary.normal()
        grooves.append((points[first : first + 8] + gap * normal, 0.011))
    for line, width in grooves:
        fade = np.clip(np.sin(np.linspace(0.1, 0.9, len(line)) * np.pi) * 1.5, 0.25, 1.0)
        groove = stroke(line, width * place.size * fade).within(canvas.solid)
        shadow = stroke(line + 0.0035, width * place.size * fade).within(canvas.solid)
        canvas.paint(shadow, edge, opacity=0.7 * place.strength)
        canvas.paint(groove, core, opacity=place.strength)
        canvas.mark(groove)
        canvas.mark(shadow)


def stain(canvas: Canvas, place: Place, *, colour: Colour, radius: float = 0.085) -> None:
    """A dried liquid: an uneven film through which the ground shows, a rim, a few droplets."""
    shape = place.shape
    pool = place.patch(radius, 0.12, shape.uniform(0.85, 1.25)).within(canvas.solid)
    film = 0.42 * place.strength * (1.0 + 0.25 * canvas.noise(shape, 16))
    canvas.paint(pool, colour, opacity=film.clip(0.1, 1.0), soft=0.016)
    canvas.paint(pool.rim(0.016), colour, opacity=0.40 * place.strength, soft=0.016)
    canvas.mark(pool)
    for _ in range(3):
        angle, gap = shape.uniform(0, 2 * np.pi), radius * shape.uniform(1.35, 1.7) * place.size
        x, y = place.x + gap * np.cos(angle), place.y + gap * np.sin(angle)
        drop = disc(x + 0.002 * place.vary.normal(), y, place.size * shape.uniform(0.009, 0.016))
        canvas.paint(drop, colour, opacity=0.7 * place.strength, soft=0.008)
        canvas.mark(drop)


def crack(
    canvas: Canvas,
    place: Place,
    *,
    colour: Colour,
    light: Colour,
    length: float = 0.36,
    jag: float = 0.22,
    lean: float = 1.0,
    width: float = 0.017,
) -> None:
    """A dark zigzag with one branch, a thin bright lip on the side of the light.

    With `lean` below 1 it keeps near to the horizontal, where wood splits.
    """
    place = replace(place, angle=lean * (place.angle - np.pi / 2))
    main = place.line(length, 14, jag)
    fork = int(place.shape.integers(4, 10))
    turn = place.angle + place.shape.choice([-1.0, 1.0]) * place.shape.uniform(0.6, 1.0)
    reach = 0.3 * length * place.size * (1.0 + 0.1 * place.vary.normal())
    steps = np.linspace(0, reach, 6)[:, None] * np.array([[np.cos(turn), np.sin(turn)]])
    branch = main[fork] + steps + place.shape.normal(size=(6, 2)) * 0.004
    wide = width * place.size
    for line, widths in (
        (main, np.linspace(wide, 0.005, 14)),
        (branch, np.linspace(wide * 0.5, 0.004, 6)),
    ):
        lip = stroke(line + 0.004, widths).within(canvas.solid)
        gap = stroke(line, widths).within(canvas.solid)
        canvas.paint(lip, light, opacity=0.6 * place.strength)
        canvas.paint(gap, colour, opacity=min(1.0, place.strength + 0.15))
        canvas.mark(lip)
        canvas.mark(gap)


def hole(canvas: Canvas, place: Place, *, thread: Colour) -> None:
    """A torn hole: the dark table below, a frayed bright rim, loose threads across."""
    radius = 0.055 * place.size
    edge = place.patch(0.055, 0.10)
    rim = edge.grown(0.2 * radius)
    canvas.paint(rim, thread, opacity=0.55, soft=0.03)
    canvas.paint(edge, (0.07, 0.06, 0.06), soft=0.008)
    canvas.mark(rim)
    for _ in range(9):
        angle = place.shape.uniform(0, 2 * np.pi)
        bend = angle + place.shape.uniform(-0.5, 0.5) + 0.1 * place.vary.normal()
        root = 1.15 * np.array([[np.cos(angle), np.sin(angle)]])
        tip = place.shape.uniform(0.35, 0.8) * np.array([[np.cos(bend), np.sin(bend)]])
        line = np.concatenate([root, (root + tip) / 2 + 0.08, tip]) * radius + place.centre
        canvas.paint(stroke(line, 0.007), thread, opacity=0.9)


def worm_holes(canvas: Canvas, place: Place) -> None:
    """A few round bore holes close together."""
    for index in range(int(place.shape.integers(4, 6))):
        angle = place.angle + index * 2.4 + place.shape.uniform(0, 0.6)
        gap = 0.044 * np.sqrt(index + 0.15) * place.size
        dx, dy = 0.002 * place.vary.normal(size=2)
        x, y = place.x + gap * np.cos(angle) + dx, place.y + gap * np.sin(angle) + dy
        radius = place.size * place.shape.uniform(0.017, 0.026)
        rim = disc(x, y, radius * 1.2)
        canvas.paint(rim, (0.33, 0.21, 0.12), opacity=0.8, soft=0.008)
        canvas.paint(disc(x - 0.003, y - 0.003, radius), (0.09, 0.055, 0.035), soft=0.008)
        canvas.mark(rim)


def fibre(canvas: Canvas, place: Place, *, colour: Colour) -> None:
    """A curled fibre on the product."""
    turns = np.linspace(0, place.shape.uniform(2.5, 4.5), 16)
    radii = np.linspace(0.05, 0.11, 16) * place.size
    flat = place.shape.uniform(0.6, 0.9)
    curl = np.stack([radii * np.cos(turns), flat * radii * np.sin(turns)], axis=1)
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    curl = curl @ np.array([[cos, sin], [-sin, cos]]) + place.centre
    curl += 0.002 * place.vary.normal(size=(1, 2))
    thread = stroke(curl, 0.016 * place.size)
    canvas.tint(thread.moved(0.009, 0.009), (0.5,) * 3, opacity=0.7, soft=0.014)
    canvas.paint(thread, colour, opacity=0.95)
    canvas.paint(stroke(curl - 0.002, 0.004), np.asarray(colour) * 1.25 + 0.08, opacity=0.8)
    canvas.mark(thread)


def chip(canvas: Canvas, place: Place, *, colour: Colour) -> None:
    """A chip of another material, with its shadow."""
    body = place.patch(0.045, 0.16, place.shape.uniform(1.15, 1.5))
    tone = np.asarray(colour) * (1.0 + 0.05 * place.vary.normal())
    canvas.tint(body.moved(0.008, 0.011), (0.45,) * 3, opacity=0.8, soft=0.016)
    canvas.paint(body, tone * 0.72)
    canvas.paint(body.grown(-0.012).moved(-0.004, -0.005), tone * 1.12, soft=0.016)
    canvas.mark(body)


def foreign(canvas: Canvas, place: Place, *, threads: Colour, chips: Colour) -> None:
    """A fibre or, in every second mode, a chip."""
    if place.mode % 2 == 0:
        fibre(canvas, place, colour=threads)
    else:
        chip(canvas, place, colour=chips)


def missing(canvas: Canvas, place: Place) -> None:
    """A missing part: what lies below it shows."""
    gap = canvas.parts[place.pick(len(canvas.parts))].grown(0.006)
    canvas.paint(gap, canvas.bare)
    canvas.mark(gap)


def slack(canvas: Canvas, place: Place) -> None:
    """Yarns that were not lifted: the layer below shows along a line across the fabric."""
    length = place.shape.uniform(0.3, 0.45) * place.size * (1.0 + 0.04 * place.vary.normal())
    width = (0.07, 0.035, 0.06)[place.mode]
    band = box(place.x, place.y, length, width, corner=0.012)
    canvas.paint(band, canvas.bare, opacity=0.95)
    canvas.mark(band)


def discolour(canvas: Canvas, place: Place, *, inner: Colour, outer: Colour) -> None:
    """A patch of another hue with soft edges: tempered steel, a fungus in wood."""
    uneven = place.strength * (1.0 + 0.06 * place.vary.normal())
    film = uneven * (1.0 + 0.15 * canvas.noise(place.shape, 14))
    patch = place.patch(0.095, 0.12, place.shape.uniform(1.1, 1.5))
    core = patch.grown(-0.036 * place.size)
    canvas.tint(patch.within(canvas.solid), outer, opacity=(0.8 * film).clip(0.1, 1.0), soft=0.04)
    canvas.tint(core.within(canvas.solid), inner, opacity=(0.9 * film).clip(0.1, 1.0), soft=0.04)
    canvas.mark(patch.within(canvas.solid))


def bridge(canvas: Canvas, place: Place) -> None:
    """Too much solder: neighbouring pins run together."""
    x, y, angle = canvas.spots[place.pick(len(canvas.spots))]
    dx, dy = 0.002 * place.vary.normal(size=2)
    place = replace(place, x=x + dx, y=y + dy, angle=angle)
    lump = place.patch(0.046, 0.10, stretch=1.5)
    canvas.tint(lump.moved(0.004, 0.006), (0.5,) * 3, opacity=0.6, soft=0.01)
    canvas.paint(lump, (0.60, 0.62, 0.62))
    canvas.paint(lump.grown(-0.012).moved(-0.003, -0.003), (0.88, 0.89, 0.88), soft=0.014)
    canvas.mark(lump)


FLAWS: dict[str, dict[str, Flaw]] = {
    "board": {
        "bridge": bridge,
        "foreign": partial(foreign, threads=(0.80, 0.78, 0.72), chips=(0.78, 0.76, 0.70)),
        "missing": missing,
        "scratch": partial(scratch, core=(0.62, 0.55, 0.36), edge=(0.02, 0.12, 0.07)),
        "stain": partial(stain, colour=(0.74, 0.72, 0.55)),
    },
    "gear": {
        "crack": partial(
            crack,
            colour=(0.07, 0.065, 0.06),
            light=(0.86, 0.86, 0.86),
            length=0.30,
            jag=0.15,
            width=0.026,
        ),
        "discolour": partial(discolour, inner=(0.62, 0.66, 1.05), outer=(1.0, 0.80, 0.52)),
        "foreign": partial(foreign, threads=(0.18, 0.20, 0.42), chips=(0.60, 0.42, 0.20)),
        "missing": missing,
        "scratch": partial(scratch, core=(0.93, 0.94, 0.95), edge=(0.20, 0.20, 0.21)),
    },
    "weave": {
        "foreign": partial(foreign, threads=(0.68, 0.16, 0.12), chips=(0.72, 0.66, 0.48)),
        "hole": partial(hole, thread=(0.72, 0.72, 0.70)),
        "slack": slack,
        "stain": partial(stain, colour=(0.10, 0.09, 0.08)),
    },
    "wood": {
        "crack": partial(crack, colour=(0.09, 0.055, 0.03), light=(0.80, 0.66, 0.48), lean=0.25),
        "discolour": partial(discolour, inner=(0.58, 0.66, 0.76), outer=(0.62, 0.68, 0.80)),
        "hole": worm_holes,
        "scratch": partial(scratch, core=(0.87, 0.74, 0.56), edge=(0.26, 0.15, 0.08)),
        "stain": partial(stain, colour=(0.22, 0.10, 0.07)),
    },
}
