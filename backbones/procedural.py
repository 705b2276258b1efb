"""Textures drawn by code: what the embedded encoder is trained on, instead of photographs.

Nothing here is modelled on any data set: nine broad families (waves, noise, cells, overlapping
shapes, strokes, tilings, scattered marks, plain surfaces and, three times as often, heaps of
shaded things), mixed in pairs, warped, in random colours and sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from tqdm import tqdm

from meds_plugin.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["FAMILIES", "texture", "texture_bank"]

Field: TypeAlias = NDArray[np.float32]
Outline: TypeAlias = NDArray[np.floating]

_GREY = 0.4  # share of textures without colour
_DEVIATION = (0.05, 0.25)  # of a texture's values, of 1
_STRETCH = 4.0  # longest element over shortest, of oriented families


def texture_bank(
    count: int, size: int, *, seed: int, purpose: str = "train", progress: bool = False
) -> Tensor:
    """Draw textures; each depends on the seed, the purpose, the size and its own number only.

    Args:
        count: Number of textures N.
        size: Side S in pixels.
        seed: Of the training run.
        purpose: Another purpose, e.g. ``held-out``, other textures.
        progress: Show a bar.

    Returns:
        uint8 ``[N, 3, S, S]``.
    """
    bank = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for index in tqdm(range(count), desc="textures", disable=not progress):
        drawn = texture(size, numpy_rng(seed, "texture", purpose, index))
        bank[index] = torch.from_numpy(drawn).permute(2, 0, 1)
    return bank


def texture(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one texture, uint8 ``[size, size, 3]``: one family over a fainter other one."""
    image: NDArray[np.floating] = _colour(_field(size, rng), rng)
    if rng.random() < 0.7:
        share = rng.uniform(0.15, 0.6)
        image = (1 - share) * image + share * _colour(_field(size, rng), rng)
    image = image + rng.normal(size=(size, size, 1)) * rng.uniform(0, 0.06)
    if rng.random() < _GREY:
        image = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    deviation = np.exp(rng.uniform(*np.log(_DEVIATION)))
    gain = min(deviation / max(image.std(), 0.01), 6.0)
    middle = image.mean()
    values = (np.clip(middle, 0.25, 0.75) + gain * (image - middle)).clip(0, 1)
    drawn: NDArray[np.uint8] = (values * 255).astype(np.uint8)
    return drawn


def _field(size: int, rng: np.random.Generator) -> Field:
    """Draw one family, in [0, 1], often warped."""
    field = FAMILIES[int(rng.integers(len(FAMILIES)))](size, rng)
    if rng.random() < 0.6:
        reach = rng.uniform(0.5, 6.0)
        shifts = [_noise(size, rng, rng.uniform(2.0, 3.5)) - 0.5 for _ in range(2)]
        grid = np.indices((size, size), dtype=np.float32)
        where = [axis + 2 * reach * shift for axis, shift in zip(grid, shifts, strict=True)]
        field = map_coordinates(field, where, order=1, mode="reflect")
    return field.astype(np.float32)


def _colour(field: Field, rng: np.random.Generator) -> Field:
    """Map [0, 1] to colours along a random path of two to four of them."""
    stops = int(rng.integers(2, 5))
    base = rng.uniform(0.15, 0.85, size=3)
    colours = (base + rng.normal(size=(stops, 3)) * rng.uniform(0.05, 0.3)).clip(0, 1)
    if rng.random() < 0.5:  # the same hue, lighter and darker
        colours = (base * rng.uniform(0.4, 1.6, size=(stops, 1))).clip(0, 1)
    at = np.linspace(0, 1, stops)
    return np.stack([np.interp(field, at, colours[:, c]) for c in range(3)], axis=-1)


def _rescale(field: NDArray[np.floating]) -> Field:
    """Bring the middle 98 % of the values to [0, 1]."""
    low, high = np.quantile(field[::2, ::2], [0.01, 0.99])
    scaled: Field = ((field - low) / max(high - low, 1e-6)).clip(0, 1).astype(np.float32)
    return scaled


def _waves(size: int, rng: np.random.Generator) -> Field:
    y, x = np.indices((size, size), dtype=np.float32)
    total: NDArray[np.floating] = np.zeros((size, size), dtype=np.float32)
    warp = (_noise(size, rng, 3.0) - 0.5) * rng.uniform(0, 6)
    for _ in range(int(rng.integers(1, 5))):
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(40)))
        phase = 2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y)
        total = total + rng.uniform(0.3, 1) * np.sin(phase + warp + rng.uniform(0, 2 * np.pi))
    return _rescale(np.tanh(total * rng.uniform(0.5, 4)))


def _noise(size: int, rng: np.random.Generator, slope: float | None = None) -> Field:
    """Draw noise of spectrum 1/f^slope, in some cases oriented or with a preferred size."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    free = slope is None
    power = rng.uniform(0.3, 2.2) if slope is None else slope
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, _STRETCH) if free else 1.0
    along, across = np.cos(angle) * fx + np.sin(angle) * fy, np.cos(angle) * fy - np.sin(angle) * fx
    radius = np.hypot(along * stretch, across)
    gain = (radius + 1 / size) ** -power
    if free and rng.random() < 0.4:
        centre = np.exp(rng.uniform(np.log(0.03), np.log(0.3)))
        gain = gain * np.exp(-(np.log((radius + 1e-4) / centre) ** 2) / rng.uniform(0.1, 0.6))
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) * gain
    spectrum[0, 0] = 0
    field = _rescale(np.fft.irfft2(spectrum, s=(size, size)))
    if free and rng.random() < 0.3:
        field = _rescale(np.tanh((field - rng.uniform(0.3, 0.7)) * rng.uniform(3, 15)))
    return field


def _cells(size: int, rng: np.random.Generator) -> Field:
    pitch = np.exp(rng.uniform(np.log(5), np.log(32)))
    count = int((size / pitch + 2) ** 2)
    stretch, angle = rng.uniform(1, 2.5), rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = rng.uniform(-pitch, size + pitch, size=(count, 2)) @ turn.T * [1, stretch]
    pixels = np.indices((size, size)).reshape(2, -1).T @ turn.T * [1, stretch]
    near, which = cKDTree(points).query(pixels, k=2)
    shade = rng.random(count)[which[:, 0]]
    edge = np.minimum((near[:, 1] - near[:, 0]) / rng.uniform(1, 0.4 * pitch + 1), 1)
    round_off = 1 - near[:, 0] / near[:, 0].max()
    mix = rng.dirichlet([1, 1, 1])
    return _rescale((mix[0] * shade + mix[1] * edge + mix[2] * round_off).reshape(size, size))


def _canvas(size: int, shade: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (2 * size, 2 * size), int(255 * shade))
    return image, ImageDraw.Draw(image)


def _shrink(image: Image.Image, size: int) -> Field:
    small = image.resize((size, size), Image.Resampling.BOX)
    field: Field = (np.asarray(small) / 255).astype(np.float32)
    return field


def _leaves(size: int, rng: np.random.Generator) -> Field:
    """Cover everything with overlapping discs and polygons of very different sizes."""
    image, draw = _canvas(size, rng.random())
    small, large = np.exp(rng.uniform(np.log(2), np.log(8))), rng.uniform(10, 40)
    count = int(min(1500, 6 * (size / small) ** 2 * small / large))
    corners = int(rng.integers(3, 9))
    radii = 2 * small * (large / small) ** (rng.random(count) ** rng.uniform(1, 3))
    for radius, place, shade in zip(
        np.sort(radii)[::-1] if rng.random() < 0.5 else radii,
        rng.uniform(0, 2 * size, (count, 2)),
        rng.integers(0, 256, count).tolist(),
        strict=True,
    ):
        if corners == 8:
            draw.ellipse([*(place - radius), *(place + radius)], fill=shade)
            continue
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        outline = place + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        draw.polygon([(px, py) for px, py in outline.tolist()], fill=shade)
    return _shrink(image, size)


def _strokes(size: int, rng: np.random.Generator) -> Field:
    image, draw = _canvas(size, rng.random())
    length, width = np.exp(rng.uniform(np.log(5), np.log(50))), rng.uniform(1, 5)
    count = int(min(1500, rng.uniform(0.5, 3) * size * size / (length * width)))
    main, spread = rng.uniform(0, np.pi), rng.choice([0.1, 0.5, 3.0])
    angles = main + spread * rng.normal(size=count)
    bend = rng.normal(size=(count, 2)) * length * rng.uniform(0, 0.4)
    step = length * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    start = rng.uniform(-length, 2 * size + length, (count, 2))
    lines = np.stack([start, start + step + bend, start + 2 * step], axis=1)
    for line, shade in zip(lines.tolist(), rng.integers(0, 256, count).tolist(), strict=True):
        draw.line([(px, py) for px, py in line], fill=shade, width=max(1, round(width)))
    return _shrink(image, size)


def _tiling(size: int, rng: np.random.Generator) -> Field:
    """Lay bricks, tiles or over-and-under threads."""
    y, x = np.indices((size, size), dtype=np.float32)
    angle = rng.choice([0.0, 0.0, rng.uniform(0, np.pi)])
    x, y = np.cos(angle) * x + np.sin(angle) * y + size, np.cos(angle) * y - np.sin(angle) * x
    width, height = np.exp(rng.uniform(np.log(6), np.log(45), 2))
    row = np.floor(y / height)
    u = x / width + rng.choice([0.0, 0.5, rng.random()]) * row
    column = np.floor(u)
    du, dv = np.abs(u - column - 0.5) * width, np.abs(y / height - row - 0.5) * height
    joint = np.minimum(width / 2 - du, height / 2 - dv)
    shades = rng.random((64, 64))
    shade = shades[row.astype(int) % 64, column.astype(int) % 64]
    relief = np.minimum(joint / rng.uniform(0.5, 4), 1)
    if rng.random() < 0.3:
        over = (row + column) % 2
        relief = np.where(over > 0, np.cos(np.pi * du / width), np.cos(np.pi * dv / height))
    mix = rng.uniform(0, 0.8)
    return _rescale((1 - mix) * relief + mix * shade)


def _scatter(size: int, rng: np.random.Generator) -> Field:
    """Put the same mark many times on a plain ground, in rows or anywhere."""
    image, draw = _canvas(size, rng.random())
    pitch = 2 * np.exp(rng.uniform(np.log(5), np.log(30)))
    side = int(2 * size / pitch) + 2
    places = np.stack(np.meshgrid(range(side), range(side)), axis=-1).reshape(-1, 2) * pitch
    places = places + rng.normal(size=places.shape) * pitch * rng.choice([0.0, 0.1, 1.0])
    ring, square = rng.random(2) < 0.3
    level, spread = rng.integers(0, 256), rng.choice([0, 60])
    radii = pitch * rng.uniform(0.12, 0.5) * np.exp(rng.normal(size=len(places)) * 0.2)
    for place, radius in zip(places, radii, strict=True):
        fill = int(np.clip(level + spread * rng.normal(), 0, 255))
        box = [*(place - radius), *(place + radius)]
        paint = draw.rectangle if square else draw.ellipse
        if ring:
            paint(box, outline=fill, width=max(1, int(radius / 3)))
        else:
            paint(box, fill=fill)
    return _shrink(image, size)


def _piles(size: int, rng: np.random.Generator) -> Field:
    """Heap up opaque things, each with a shade, a slope of light and a grain of its own.

    Blades, stones, discs or leaves, one or two kinds; those below may be darker and in shadow.
    """
    side = 2 * size
    owner = Image.new("I", (side, side), 0)
    draw = ImageDraw.Draw(owner)
    kinds = [_THINGS[int(rng.integers(len(_THINGS)))] for _ in range(int(rng.integers(1, 3)))]
    length = 2 * np.exp(rng.uniform(np.log(5), np.log(32)))
    count = int(np.clip(rng.uniform(3, 8) * side * side / length**2, 60, 1800))
    main, spread = rng.uniform(0, np.pi), rng.choice([0.1, 0.6, 3.0])
    shape_spread = rng.uniform(0, 0.6)
    centres = rng.uniform(-length, side + length, (count, 2))
    angles = main + spread * rng.normal(size=count)
    lengths = length * np.exp(shape_spread * rng.normal(size=count))
    stretch = np.exp(rng.uniform(0, 1.0))
    for index in range(count):
        outline = kinds[index % len(kinds)](rng, lengths[index], stretch)
        cosine, sine = np.cos(angles[index]), np.sin(angles[index])
        turned = outline @ np.array([[cosine, sine], [-sine, cosine]]) + centres[index]
        draw.polygon([(px, py) for px, py in turned.tolist()], fill=index + 1)
    thing = np.asarray(owner)
    order = np.arange(count + 1) / count
    shade = rng.normal(size=count + 1) * rng.uniform(0.1, 0.5) + order * rng.uniform(0, 1.2)
    slope = rng.normal(size=(2, count + 1)) * rng.uniform(0, 0.5) / length
    if rng.random() < 0.5:  # one light for all
        slope += rng.normal(size=(2, 1)) * 0.4 / length
    slope[:, 0], shade[0] = 0, shade.min()
    centre = np.concatenate([np.zeros((1, 2)), centres])
    y, x = np.indices((side, side), dtype=np.float32)
    value = shade[thing] + slope[0][thing] * (x - centre[thing, 0])
    value = value + slope[1][thing] * (y - centre[thing, 1])
    amount = np.abs(rng.normal(size=count + 1)) * rng.uniform(0, 0.5)
    grain = np.kron(_noise(size, rng, rng.uniform(0.5, 2.0)) - 0.5, np.ones((2, 2)))
    value = value + amount[thing] * 2 * grain
    if rng.random() < 0.6:
        reach = int(rng.integers(1, 5))
        shift = (int(rng.integers(-reach, reach + 1)), reach)
        above = np.roll(thing, shift, axis=(0, 1)) > thing
        value = value - above * rng.uniform(0.1, 0.8)
    return _rescale(value.reshape(size, 2, size, 2).mean(axis=(1, 3)))


def _blade(rng: np.random.Generator, length: float, stretch: float) -> Outline:
    """Return the outline of a thin bent thing, ``[K, 2]``."""
    t = np.linspace(-1, 1, 6)
    width = length / (6 * stretch) * (1 - rng.uniform(0, 1) * np.abs(t) ** 2)
    middle = rng.normal() * 0.25 * length * t**2
    along = np.concatenate([t, t[::-1]]) * length
    across = np.concatenate([middle - width, (middle + width)[::-1]])
    return np.stack([along, across], axis=1)


def _stone(rng: np.random.Generator, length: float, stretch: float) -> Outline:
    """Return the outline of a convex thing with corners, ``[K, 2]``."""
    corners = int(rng.integers(4, 9))
    angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners
    outline: Outline = 0.6 * length * np.stack([np.cos(angles), np.sin(angles) / stretch], axis=1)
    return outline


def _leaf(rng: np.random.Generator, length: float, stretch: float) -> Outline:
    """Return the outline of a lobed or round thing, ``[K, 2]``."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    lobes = 1 + rng.uniform(0, 0.4) * np.cos(int(rng.integers(2, 6)) * angles + rng.uniform(0, 6))
    around: Outline = np.stack([np.cos(angles), np.sin(angles) / stretch], axis=1)
    return (length * 0.55 * lobes)[:, None] * around


_THINGS = (_blade, _stone, _leaf)


def _plain(size: int, rng: np.random.Generator) -> Field:
    """Draw a nearly even surface."""
    level: float = rng.random()
    return (level + 0.15 * (_noise(size, rng) - 0.5)).clip(0, 1).astype(np.float32)


FAMILIES: tuple[Callable[[int, np.random.Generator], Field], ...] = (
    _waves,
    _noise,
    _cells,
    _leaves,
    _strokes,
    _tiling,
    _scatter,
    _plain,
    _piles,
    _piles,
    _piles,
)
