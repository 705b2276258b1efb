"""Pictures to train on: mosaics of textures, each in two views, with small foreign marks.

Both views of a mosaic show the same regions of the same textures, cut elsewhere, in another light;
the marks (scratches, blots, stains, patches of another picture) are in one view only. So it is
known, patch by patch, what should look alike and what should not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["IGNORED", "MARKED", "Mosaics", "draw_mosaics"]

MARKED, IGNORED = -1, -2

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)  # as the plugin's data normalise
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
_VISIBLE, _INVISIBLE = 0.012, 0.003  # mean change of a patch's pixels, of 1
_PURE, _MIXED = 0.97, 0.9  # share of a patch that its largest region covers


class Mosaics(NamedTuple):
    """A batch of views; those of one mosaic follow each other.

    Attributes:
        images: Normalised, ``[V, 3, S, S]``.
        labels: ``[V, P]`` long: the same number in all views of a mosaic (and nowhere else) for
            patches of one texture, or, where regions meet, for patches at the same place;
            `MARKED` for patches with a foreign mark, `IGNORED` for doubtful ones.
        mixed: ``[V, P]`` bool, where regions meet.
        mosaic: ``[V]`` long, the number of the mosaic that a view shows.
    """

    images: Tensor
    labels: Tensor
    mixed: Tensor
    mosaic: Tensor

    def to(self, device: torch.device | str) -> Mosaics:
        """Move everything to a device."""
        return Mosaics(*(part.to(device) for part in self))


class _Draw:
    """Random numbers of one batch."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def chance(self, share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < share


def draw_mosaics(
    bank: Tensor,
    generator: Generator,
    *,
    mosaics: int,
    size: int,
    views: int = 2,
    patch: int = 8,
    regions: int = 3,
    single: float = 0.25,
    marked: float = 0.6,
) -> Mosaics:
    """Draw a batch.

    Args:
        bank: Textures, uint8 ``[N, 3, C, C]``.
        generator: Every draw comes from it.
        mosaics: Their number.
        size: Side S of a view in pixels, a multiple of ``patch``.
        views: Views of each mosaic; V of all together.
        patch: Side of a patch in pixels.
        regions: Textures a mosaic.
        single: Share of mosaics of one texture only.
        marked: Share of views with foreign marks.
    """
    draw, grid = _Draw(generator), size // patch
    cover = _regions(draw, (mosaics, regions, views), size, single)
    layers = _textures(bank, draw, (mosaics, regions, views), size)
    clean = (cover[:, :, None] * layers).sum(dim=1)
    images = _marks(clean, draw, marked)
    change = F.avg_pool2d((images - clean).abs().mean(dim=1, keepdim=True), patch)[:, 0].flatten(1)
    share, region = F.avg_pool2d(cover, patch).flatten(2).max(dim=1)
    mixed = share < _MIXED
    mosaic = torch.arange(mosaics).repeat_interleave(views)
    place = torch.arange(grid * grid)[None]
    labels = mosaic[:, None] * (regions + grid * grid) + torch.where(mixed, regions + place, region)
    labels[(share >= _MIXED) & (share < _PURE) | (change > _INVISIBLE)] = IGNORED
    labels[change > _VISIBLE] = MARKED
    return Mosaics((_photograph(images, draw) - _MEAN) / _STD, labels, mixed, mosaic)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    return axis[:, None], axis[None]


def _smooth(draw: _Draw, count: int, channels: int, coarse: int, size: int) -> Tensor:
    field = draw.normal(count, channels, coarse, coarse)
    return F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)


def _regions(draw: _Draw, counts: tuple[int, int, int], size: int, single: float) -> Tensor:
    """Return which region each pixel of each view belongs to, ``[V, R, S, S]`` of 0 and 1."""
    mosaics, regions, each = counts
    reach = 4
    side = size + reach
    coarse = 2 + int(draw.integers(2 + size // 32))
    fields = _smooth(draw, mosaics, regions, coarse, side)
    y, x = _grid(side)
    angle = draw.uniform(0, 2 * math.pi, mosaics, 1, 1)
    offset = draw.uniform(-0.4, 0.4, mosaics, 1, 1) * size
    half = torch.cos(angle) * x + torch.sin(angle) * y - offset
    centre = draw.uniform(-0.4, 0.4, 2, mosaics, 1, 1) * size
    turned = torch.cos(angle) * (x - centre[0]) + torch.sin(angle) * (y - centre[1])
    across = torch.cos(angle) * (y - centre[1]) - torch.sin(angle) * (x - centre[0])
    aspect = torch.exp(draw.uniform(-0.7, 0.7, mosaics, 1, 1))
    turned, across = (turned * aspect).abs(), (across / aspect).abs()
    round_ = torch.hypot(turned, across)
    disc = torch.where(draw.chance(0.5, mosaics, 1, 1), round_, torch.maximum(turned, across))
    radius = draw.uniform(0.08, 0.35, mosaics, 1, 1) * size
    shapes = torch.stack([torch.zeros_like(half), half, 20 * (radius - disc)], dim=1)
    shaped = draw.chance(0.5, mosaics, 1, 1, 1)
    fields[:, :3] = torch.where(shaped, shapes[:, :regions], fields[:, :3])
    fields[:, 3:] -= torch.where(shaped, 1e6, 0.0)
    fields[:, :1] += torch.where(draw.chance(single, mosaics, 1, 1, 1), 2e6, 0.0)
    chosen = fields.argmax(dim=1)
    shifts = draw.integers(reach + 1, each * mosaics, 2).tolist()
    views = [
        chosen[view // each, top : top + size, left : left + size]
        for view, (top, left) in enumerate(shifts)
    ]
    return F.one_hot(torch.stack(views), regions).permute(0, 3, 1, 2).float()


def _textures(bank: Tensor, draw: _Draw, counts: tuple[int, int, int], size: int) -> Tensor:
    """Return every region's texture over the whole of every view, ``[V, R, 3, S, S]``.

    Turn, zoom and colours belong to the region; all views have them but for a little.
    """
    mosaics, regions, each = counts
    count, canvas = mosaics * regions, bank.shape[-1]
    chosen = bank[draw.integers(len(bank), count)].float() / 255
    chosen = _recolour(chosen, draw, mosaics, regions)
    angle = draw.uniform(-math.pi, math.pi, count, 1) + 0.06 * draw.normal(count, each)
    zoom = torch.exp(draw.uniform(-0.5, 0.5, count, 1) + 0.05 * draw.normal(count, each))
    offset = draw.uniform(-1, 1, count, each, 2)
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    turn = torch.stack([cosine, -sine, sine, cosine], dim=-1).view(count, each, 2, 2)
    affine = torch.cat([turn * size / canvas, offset[..., None]], dim=-1)
    views = [
        F.grid_sample(
            chosen,
            F.affine_grid(affine[:, view], [count, 3, size, size], align_corners=False),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
        for view in range(each)
    ]
    stacked = torch.stack([v.view(mosaics, regions, 3, size, size) for v in views], dim=1)
    return stacked.flatten(0, 1)


def _recolour(textures: Tensor, draw: _Draw, mosaics: int, regions: int) -> Tensor:
    """Give every texture other colours; often grey, often the same mean within a mosaic."""
    count = mosaics * regions
    mean = textures.mean(dim=(2, 3), keepdim=True)
    mixing = torch.eye(3) + 0.4 * draw.normal(count, 3, 3)
    mixing = mixing / mixing.sum(dim=2, keepdim=True).abs().clamp(min=0.5)
    grey = torch.full((3, 3), 1 / 3)
    amount = draw.uniform(0, 1, count, 1, 1) * draw.chance(0.6, count, 1, 1)
    mixing = (1 - amount) * mixing + amount * grey
    contrast = draw.uniform(0.4, 1.3, count, 1, 1) * torch.where(
        draw.chance(0.3, count, 1, 1), -1.0, 1.0
    )
    moved = torch.einsum("nij,njhw->nihw", contrast * mixing, textures - mean)
    level = draw.uniform(0.2, 0.8, count, 1, 1, 1)
    tint = 0.12 * draw.normal(count, 3, 1, 1) * draw.chance(0.5, count, 1, 1, 1)
    mean = (level + tint).view(mosaics, regions, 3, 1, 1)
    alike = draw.chance(0.5, mosaics, 1, 1, 1, 1)
    near = mean[:, :1] + 0.04 * draw.normal(mosaics, regions, 3, 1, 1)
    return (moved + torch.where(alike, near, mean).flatten(0, 1)).clamp(0, 1)


def _marks(clean: Tensor, draw: _Draw, marked: float) -> Tensor:
    """Put foreign marks into a share of the views: up to two, in larger ones more."""
    views, size = len(clean), clean.shape[-1]
    result = clean
    for share in (marked, marked / 2) * max(1, size // 64):
        alpha = _shapes(draw, views, size) * draw.uniform(0.35, 1, views, 1, 1, 1)
        alpha = alpha * draw.chance(share, views, 1, 1, 1)
        result = result + alpha * (_fillings(result, draw) - result)
    return result.clamp(0, 1)


def _shapes(draw: _Draw, views: int, size: int) -> Tensor:
    """Return a curved stroke, a blot or a ragged spot a view, ``[V, 1, S, S]`` in [0, 1]."""
    y, x = _grid(size)
    start, end = draw.uniform(-0.5, 0.5, 2, views, 2) * size
    length = draw.uniform(6, 48, views, 1)
    end = start + (end - start) / (end - start).norm(dim=1, keepdim=True).clamp(min=1) * length
    middle = (start + end) / 2 + 0.15 * length * draw.normal(views, 2)
    t = torch.linspace(0, 1, 16).view(-1, 1, 1)
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    squared = (y - curve[..., 0, None, None]) ** 2 + (x - curve[..., 1, None, None]) ** 2
    width = draw.uniform(0.5, 2.5, views, 1, 1)
    stroke = squared.amin(dim=0).sqrt() - width
    centre = draw.uniform(-0.45, 0.45, 2, views, 1, 1) * size
    dy, dx = y - centre[0], x - centre[1]
    angle = draw.uniform(0, math.pi, views, 1, 1)
    stretch = torch.exp(draw.uniform(-0.6, 0.6, views, 1, 1))
    along = (torch.cos(angle) * dx + torch.sin(angle) * dy) * stretch
    across = (torch.cos(angle) * dy - torch.sin(angle) * dx) / stretch
    radius = draw.uniform(2, 12, views, 1, 1)
    ragged = _smooth(draw, views, 1, max(4, size // 6), size)[:, 0]
    ragged = ragged * draw.chance(0.5, views, 1, 1) * 0.4 * radius
    blot = torch.hypot(along, across) - radius + ragged
    distance = torch.where(draw.chance(0.45, views, 1, 1), stroke, blot)
    soft = torch.exp(draw.uniform(-1.2, 0.7, views, 1, 1))
    return torch.sigmoid(-distance / soft)[:, None]


def _fillings(views: Tensor, draw: _Draw) -> Tensor:
    """Return what a mark shows: another picture, a colour, a stain, a blur or a displaced part."""
    count, size = len(views), views.shape[-1]
    colour = draw.uniform(0, 1, count, 3, 1, 1)
    grey = colour.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    plain = torch.where(draw.chance(0.5, count, 1, 1, 1), grey, colour).expand_as(views)
    gain = torch.exp(draw.uniform(-0.7, 0.5, count, 1, 1, 1))
    stain = views * gain + 0.1 * draw.normal(count, 3, 1, 1)
    blurred = F.avg_pool2d(F.pad(views, (3, 3, 3, 3), mode="reflect"), 7, stride=1)
    shift = 5 + int(draw.integers(size // 2))
    displaced = views.roll((shift, shift // 2), dims=(2, 3)).flip(3).transpose(2, 3)
    foreign = views.roll(2 * (1 + int(draw.integers(max(1, count // 2 - 1)))), dims=0)
    options = torch.stack([foreign, plain, stain, plain, foreign, blurred, displaced, stain])
    chosen: Tensor = options[draw.integers(len(options), count), torch.arange(count)]
    return chosen


def _photograph(views: Tensor, draw: _Draw) -> Tensor:
    """Change each view's light, sharpness and noise."""
    count, size = len(views), views.shape[-1]
    y, x = _grid(size)
    slope = draw.normal(2, count, 1, 1, 1) * 0.08 / size
    gain = torch.exp(0.1 * draw.normal(count, 1, 1, 1) + slope[0] * x + slope[1] * y)
    cast = 1 + 0.02 * draw.normal(count, 3, 1, 1)
    gamma = torch.exp(0.12 * draw.normal(count, 1, 1, 1))
    lit = (views.clamp(min=1e-3) ** gamma * gain * cast).clamp(0, 1)
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    soft = F.conv2d(F.pad(lit, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    amount = draw.uniform(0, 1, count, 1, 1, 1) * draw.chance(0.4, count, 1, 1, 1)
    noise = draw.normal(count, 3, size, size) * draw.uniform(0, 0.03, count, 1, 1, 1)
    return (lit + amount * (soft - lit) + noise).clamp(0, 1)
