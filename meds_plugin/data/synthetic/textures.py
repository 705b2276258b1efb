"""Two scenes without defects: denim and wood.

Each image is another cut from an endless material: phases, yarns and grain are random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meds_plugin.data.synthetic.canvas import Canvas, Pose
from meds_plugin.data.synthetic.shapes import smoothstep

if TYPE_CHECKING:
    from meds_plugin.data.synthetic.shapes import Floats

__all__ = ["weave", "wood"]

YARNS = 22  # across the image


def weave(size: int, rng: np.random.Generator) -> tuple[Canvas, Pose]:
    """Return denim: blue warp over white weft in a three-to-one twill."""
    canvas = Canvas(size)
    u = canvas.x * YARNS + 0.18 * canvas.noise(rng, 3) + rng.uniform(0, 40)
    v = canvas.y * YARNS * 0.8 + 0.15 * canvas.noise(rng, 3) + rng.uniform(0, 40)
    column, row = np.floor(u), np.floor(v)
    tones = 1.0 + rng.normal(size=(2, 80)) * ((0.10,), (0.05,))
    warp_tone, weft_tone = tones.astype(np.float32)
    fuzz = 1.0 + 0.09 * canvas.noise(rng, 150) + 0.04 * canvas.noise(rng, 12)

    def strand(across: Floats, index: Floats, tone: Floats, colour: Floats) -> Floats:
        profile = np.sqrt(np.clip(1.0 - (2.0 * across - 1.0) ** 2, 0.02, 1.0))
        light = (0.42 + 0.58 * profile) * tone[index.astype(np.intp) % 80] * fuzz
        return np.asarray(light[..., None] * colour, np.float32)

    # How far along its float of three a warp yarn is: it dives at both ends.
    phase = (v + column) % 4.0
    over = smoothstep(np.minimum(phase, 3.0 - phase) / 0.22 + 0.5)
    bulge = 0.82 + 0.18 * np.sin(np.pi * np.clip(phase / 3.0, 0.0, 1.0))
    warp = strand(u - column, column, warp_tone, np.array((0.25, 0.34, 0.52), np.float32))
    weft = strand(v - row, row, weft_tone, np.array((0.80, 0.79, 0.75), np.float32))
    canvas.bare = weft
    # Between two warp yarns the weft goes down and into their shade.
    weft = weft * (0.55 + 0.40 * np.sin(np.pi * (u - column)))[..., None]
    canvas.rgb = (weft + over[..., None] * (warp * bulge[..., None] - weft)).astype(np.float32)
    return canvas, Pose.random(rng, shift=0.0, angle=0.03)


def wood(size: int, rng: np.random.Generator) -> tuple[Canvas, Pose]:
    """Return a planed board of oak with horizontal grain."""
    canvas = Canvas(size)
    depth = canvas.y * 8.0 + rng.uniform(0, 50)
    depth = depth + 0.75 * canvas.noise(rng, 0.8, 2.0) + 0.12 * canvas.noise(rng, 4, 12)
    ring = depth % 1.0  # pale early wood that darkens slowly, then starts anew
    index = np.floor(depth).astype(np.intp) % 64
    tone = rng.normal(size=64).astype(np.float32)[index]
    late = smoothstep(ring / 0.92) * smoothstep((1.0 - ring) / 0.08)
    fibre = canvas.noise(rng, 6, 110)
    fine = canvas.noise(rng, 22, 170)
    pores = smoothstep((canvas.noise(rng, 16, 120) - 1.25 + 0.5 * late) / 0.5)
    dark = 0.34 * late + 0.05 * tone + 0.055 * fibre + 0.05 * fine + 0.32 * pores
    dark += 0.06 * canvas.noise(rng, 2) + 0.03 * rng.normal()
    pale, brown = (
        np.array((0.78, 0.60, 0.41), np.float32),
        np.array((0.40, 0.245, 0.13), np.float32),
    )
    canvas.rgb = (pale + np.clip(dark, -0.2, 1.1)[..., None] * (brown - pale)).astype(np.float32)
    return canvas, Pose.random(rng, shift=0.0, angle=0.03)
