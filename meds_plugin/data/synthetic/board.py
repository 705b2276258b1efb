"""A scene without defects: a small circuit board.

The design is the same in every image; placement and tone of the parts differ from piece to piece.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meds_plugin.data.synthetic.canvas import Canvas, Pose
from meds_plugin.data.synthetic.shapes import box, disc, stroke

if TYPE_CHECKING:
    from meds_plugin.data.synthetic.shapes import Floats

__all__ = ["board"]


class _Part(NamedTuple):
    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def is_round(self) -> bool:
        return self.kind in {"can", "lamp"}

    @property
    def is_chip(self) -> bool:
        return self.kind in {"quad", "dual"}

    def pads(self) -> list[tuple[float, float, float, float]]:
        """Return ``(x, y, width, height)`` of the leads."""
        _, x, y, width, height = self
        if self.is_chip:
            count, pitch = (6, 0.029) if self.kind == "quad" else (5, 0.036)
            steps = (np.arange(count) - (count - 1) / 2) * pitch
            reach = width / 2 + 0.011
            pads = [
                (x + side * reach, y + step, 0.026, 0.014) for side in (-1, 1) for step in steps
            ]
            if self.kind == "quad":
                pads += [(px - x + y, py - y + x, w, h) for py, px, h, w in pads]
            return pads
        if self.kind == "header":
            return []
        if width > height:
            return [(x + side * width * 0.37, y, width * 0.26, height) for side in (-1, 1)]
        return [(x, y + side * height * 0.37, width, height * 0.26) for side in (-1, 1)]


_SILVER = (0.74, 0.75, 0.74)
_GOLD = (0.80, 0.66, 0.32)
_INK = (0.82, 0.85, 0.82)
_PARTS = (
    _Part("quad", 0.40, 0.40, 0.20, 0.20),
    _Part("dual", 0.765, 0.27, 0.10, 0.19),
    _Part("crystal", 0.745, 0.52, 0.15, 0.065),
    _Part("can", 0.23, 0.745, 0.145, 0.145),
    _Part("can", 0.40, 0.765, 0.10, 0.10),
    _Part("resistor", 0.20, 0.135, 0.075, 0.036),
    _Part("resistor", 0.34, 0.135, 0.075, 0.036),
    _Part("resistor", 0.615, 0.66, 0.036, 0.075),
    _Part("resistor", 0.70, 0.66, 0.036, 0.075),
    _Part("ceramic", 0.135, 0.37, 0.036, 0.075),
    _Part("ceramic", 0.135, 0.50, 0.036, 0.075),
    _Part("ceramic", 0.50, 0.135, 0.075, 0.036),
    _Part("lamp", 0.86, 0.68, 0.06, 0.06),
    _Part("header", 0.70, 0.845, 0.36, 0.085),
)
_TRACES = (
    ((0.50, 0.34), (0.58, 0.34), (0.64, 0.28), (0.70, 0.28)),
    ((0.50, 0.37), (0.60, 0.37), (0.66, 0.31), (0.70, 0.31)),
    ((0.50, 0.40), (0.62, 0.40), (0.67, 0.45), (0.67, 0.52)),
    ((0.50, 0.43), (0.58, 0.43), (0.615, 0.47), (0.615, 0.62)),
    ((0.50, 0.46), (0.55, 0.46), (0.58, 0.50), (0.58, 0.80)),
    ((0.30, 0.37), (0.14, 0.37)),
    ((0.30, 0.43), (0.20, 0.43), (0.14, 0.49)),
    ((0.34, 0.30), (0.34, 0.14)),
    ((0.37, 0.30), (0.37, 0.24), (0.24, 0.14)),
    ((0.46, 0.30), (0.46, 0.20), (0.48, 0.14)),
    ((0.34, 0.50), (0.34, 0.58), (0.23, 0.68), (0.23, 0.74)),
    ((0.40, 0.50), (0.40, 0.76)),
    ((0.46, 0.50), (0.46, 0.56), (0.54, 0.64), (0.54, 0.84)),
    ((0.70, 0.69), (0.70, 0.84)),
    ((0.83, 0.28), (0.90, 0.35), (0.90, 0.62), (0.86, 0.68)),
    ((0.14, 0.53), (0.10, 0.58), (0.10, 0.82)),
)
# fmt: off
_VIAS = (
    (0.58, 0.24), (0.62, 0.20), (0.25, 0.27), (0.27, 0.58), (0.10, 0.64), (0.52, 0.60),
    (0.90, 0.50), (0.84, 0.60), (0.66, 0.58), (0.30, 0.88), (0.46, 0.88), (0.58, 0.12),
)
# fmt: on


def board(size: int, rng: np.random.Generator) -> tuple[Canvas, Pose]:
    """Return a populated circuit board that fills most of the image."""
    canvas = Canvas(size)
    canvas.rgb = _bare_board(size).copy()
    canvas.rgb *= (1.0 + 0.025 * canvas.noise(rng, 5))[..., None]
    canvas.bare = canvas.rgb.copy()
    for part in _PARTS:
        dx, dy, turn, tone = rng.normal(size=4) * (0.0022, 0.0022, 0.012, 0.035)
        placed = part._replace(x=part.x + dx, y=part.y + dy)
        mount = _mount_round if part.is_round else _mount
        mount(canvas, placed, turn, np.full(3, 1.0 + tone))
    # A missing part takes its joints along; nobody would miss the smallest ones at 128 px.
    canvas.parts = [
        disc(part.x, part.y, part.width / 2 + 0.006)
        if part.is_round
        else box(part.x, part.y, part.width + 0.05 * part.is_chip, part.height)
        for part in _PARTS
        if part.kind in {"dual", "crystal", "can", "lamp"}
    ]
    canvas.solid = box(0.5, 0.5, 0.92, 0.92)
    chip = _PARTS[0]
    steps = (-0.044, -0.015, 0.044)
    for side in (-0.113, 0.113):
        canvas.spots += [(chip.x + side, chip.y + step, np.pi / 2) for step in steps]
        canvas.spots += [(chip.x + step, chip.y + side, 0.0) for step in steps]
    return canvas, Pose.random(rng, shift=0.006, angle=0.012, scale=0.004)


@lru_cache(maxsize=2)
def _bare_board(size: int) -> Floats:
    canvas = Canvas(size)
    canvas.rgb[:] = (0.20, 0.21, 0.23)
    canvas.tint(box(0.512, 0.518, 0.94, 0.94, corner=0.03), (0.45,) * 3, soft=0.03)
    canvas.paint(box(0.5, 0.5, 0.93, 0.93, corner=0.025), (0.42, 0.45, 0.24))
    canvas.paint(box(0.5, 0.5, 0.92, 0.92, corner=0.022), (0.055, 0.29, 0.17))
    canvas.tint(box(0.30, 0.80, 0.44, 0.26, corner=0.03), (1.3, 1.14, 1.15))
    canvas.tint(box(0.40, 0.40, 0.17, 0.17), (1.3, 1.14, 1.15))
    for trace in _TRACES:
        canvas.tint(stroke(np.array(trace) + 0.002, 0.013), (0.75,) * 3)
        canvas.paint(stroke(np.array(trace), 0.011), (0.10, 0.42, 0.24))
    for x, y in _VIAS:
        canvas.paint(disc(x, y, 0.013), _GOLD)
        canvas.paint(disc(x, y, 0.006), (0.06, 0.07, 0.06))
    for x, y in ((0.085, 0.085), (0.915, 0.085), (0.085, 0.915), (0.915, 0.915)):
        canvas.paint(disc(x, y, 0.035), _GOLD)
        canvas.paint(disc(x, y, 0.021), (0.11, 0.11, 0.12))
    for part in _PARTS:
        _footprint(canvas, part)
    for number, x, y in ((1, 0.28, 0.225), (2, 0.83, 0.40), (3, 0.86, 0.47), (7, 0.335, 0.69)):
        canvas.print_number(f"{number}{number + 3}", x, y, 0.034, _INK)
    canvas.rgb.flags.writeable = False
    return canvas.rgb


def _footprint(canvas: Canvas, part: _Part) -> None:
    """Draw what stays on the bare board below a part: pads and a printed outline."""
    kind, x, y, width, height = part
    if part.is_round:
        canvas.paint(disc(x, y, width / 2 + 0.010), _INK)
        canvas.paint(disc(x, y, width / 2 + 0.004), (0.05, 0.26, 0.16))
        for side in (-1, 1):
            canvas.paint(disc(x + side * width / 4, y, 0.014), _GOLD)
            canvas.paint(disc(x + side * width / 4, y, 0.006), (0.10, 0.10, 0.09))
        return
    gap = 0.016 if part.is_chip or kind == "header" else 0.022
    canvas.paint(box(x, y, width + gap, height + gap), _INK)
    canvas.paint(box(x, y, width + gap - 0.009, height + gap - 0.009), (0.05, 0.27, 0.16))
    for px, py, w, h in part.pads():
        canvas.paint(box(px, py, w + 0.006, h + 0.006), _GOLD)


def _mount(canvas: Canvas, part: _Part, turn: float, shade: Floats) -> None:
    """Draw a part with a rectangular body."""
    kind, x, y, width, height = part
    canvas.tint(box(x + 0.008, y + 0.010, width, height, angle=turn), (0.45,) * 3, soft=0.016)
    for px, py, w, h in part.pads():
        canvas.paint(box(px, py, w, h, angle=turn), shade * _SILVER)
        canvas.paint(box(px, py - h * 0.22, w * 0.8, h * 0.25, angle=turn), shade * (0.95,) * 3)
    if kind in {"resistor", "ceramic"}:
        body = (0.10, 0.10, 0.115) if kind == "resistor" else (0.60, 0.46, 0.31)
        long_x = width > height
        w, h = (width * 0.58, height) if long_x else (width, height * 0.58)
        canvas.paint(box(x, y, w, h, angle=turn), shade * body)
        if kind == "resistor":
            canvas.paint(box(x, y, w * 0.5, h * 0.3, angle=turn), (0.70,) * 3, opacity=0.7)
        return
    if kind == "crystal":
        canvas.paint(box(x, y, width, height, angle=turn, corner=height / 2), shade * _SILVER)
        inner = box(x, y - 0.004, width - 0.024, height - 0.026, angle=turn, corner=0.018)
        canvas.paint(inner, shade * (0.86, 0.87, 0.86), soft=0.012)
        return
    canvas.paint(box(x, y, width, height, angle=turn, corner=0.006), shade * (0.105, 0.11, 0.12))
    top = box(x - 0.003, y - 0.003, width - 0.016, height - 0.016, angle=turn)
    canvas.paint(top, shade * (0.16, 0.165, 0.175), soft=0.008)
    if kind == "header":
        for offset in (np.arange(8) - 3.5) * 0.042:
            canvas.paint(box(x + offset, y, 0.022, 0.022, angle=turn), (0.05, 0.05, 0.05))
            canvas.paint(box(x + offset, y, 0.014, 0.014, angle=turn), shade * _GOLD)
        return
    canvas.paint(disc(x - width / 2 + 0.024, y - height / 2 + 0.024, 0.009), (0.05, 0.05, 0.05))
    canvas.print_number("4815" if kind == "quad" else "16", x, y, 0.036, (0.45, 0.45, 0.44))


def _mount_round(canvas: Canvas, part: _Part, turn: float, shade: Floats) -> None:
    kind, x, y, radius = part.kind, part.x, part.y, part.width / 2
    canvas.tint(disc(x + 0.012, y + 0.016, radius), (0.40,) * 3, soft=0.024)
    if kind == "lamp":
        canvas.paint(disc(x, y, radius), shade * (0.62, 0.10, 0.08))
        canvas.paint(disc(x, y, radius * 0.7), shade * (0.80, 0.20, 0.14), soft=0.02)
        canvas.paint(disc(x - 0.008, y - 0.008, 0.008), (1.0, 0.78, 0.72), soft=0.008)
        return
    canvas.paint(disc(x, y, radius), shade * (0.16, 0.17, 0.22))
    canvas.paint(disc(x, y, radius - 0.008), shade * (0.70, 0.71, 0.73))
    canvas.paint(disc(x - 0.008, y - 0.010, radius - 0.03), shade * (0.80,) * 3, soft=0.03)
    dark = box(x + radius * 0.62, y, radius * 0.46, radius * 1.15, corner=radius * 0.2)
    canvas.paint(dark, shade * (0.13, 0.14, 0.19))
    for angle in (0.3 + turn, 0.3 + turn + np.pi / 2):
        ray = 0.45 * radius * np.array([np.cos(angle), np.sin(angle)])
        centre = (x - radius * 0.15, y)
        canvas.tint(stroke(np.array([centre - ray, centre + ray]), 0.006), (0.62,) * 3)
