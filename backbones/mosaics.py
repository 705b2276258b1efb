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

from backbones.marks import Draw, add_marks, pixel_grid, smooth_field

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["IGNORED", "MARKED", "Mosaics", "draw_mosaics"]

MARKED, IGNORED = -1, -2

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)  # as the plugin's data normalise
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
_VISIBLE, _INVISIBLE = 0.012, 0.003  # mean change of a patch's pixels, of 1
_REACH = 4  # shift between views, pixels
_PURE, _MIXED = 0.97, 0.9  # share of a patch that its largest region covers


class Mosaics(NamedTuple):
    """A batch of views; those of one mosaic follow each other.

    Attributes:
        images: Normalised, ``[V, 3, S, S]``.
        labels: ``[V, P]`` long: the same number in all views of a mosaic (and nowhere else) for
            patches of one texture, or, in aligned mosaics and where regions meet, for patches at
            the same place; `MARKED` for patches with a foreign mark, `IGNORED` for doubtful ones.
        groups: ``[V, P]`` long: the same number for all patches of a region, and of the meeting
            places of a mosaic, which may look alike whatever their labels.
        mosaic: ``[V]`` long, the number of the mosaic that a view shows.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    mosaic: Tensor

    def to(self, device: torch.device | str) -> Mosaics:
        """Move everything to a device."""
        return Mosaics(*(part.to(device) for part in self))


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
    aligned: float = 0.4,
    grey: float = 0.0,
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
        aligned: Share of mosaics whose views show the same cut of their textures, but for a shift
            of up to four pixels.
        grey: Share of mosaics without any colour, marks and all.
    """
    draw, grid = Draw(generator), size // patch
    counts = mosaics, regions, views
    shifts = draw.integers(_REACH + 1, mosaics, views, 2)
    same_cut = draw.chance(aligned, mosaics)
    cover = _regions(draw, counts, size, single, shifts)
    layers = _textures(bank, draw, counts, size, shifts, same_cut)
    clean = (cover[:, :, None] * layers).sum(dim=1)
    images = add_marks(clean, draw, marked)
    pictures = _photograph(images, draw)
    if grey:
        colourless = draw.chance(grey, mosaics).repeat_interleave(views)[:, None, None, None]
        clean, images, pictures = (
            torch.where(colourless, each.mean(dim=1, keepdim=True), each)
            for each in (clean, images, pictures)
        )
    change = F.avg_pool2d((images - clean).abs().mean(dim=1, keepdim=True), patch)[:, 0].flatten(1)
    share, region = F.avg_pool2d(cover, patch).flatten(2).max(dim=1)
    region = torch.where(share < _MIXED, regions, region)
    mosaic = torch.arange(mosaics).repeat_interleave(views)
    placed = (region == regions) | same_cut[mosaic][:, None]
    groups = mosaic[:, None] * (regions + 1) + region
    place = torch.arange(grid * grid)[None]
    of_place = mosaic[:, None] * grid * grid + place + mosaics * (regions + 1)
    labels = torch.where(placed, of_place, groups)
    labels[(share >= _MIXED) & (share < _PURE) | (change > _INVISIBLE)] = IGNORED
    labels[change > _VISIBLE] = MARKED
    return Mosaics((pictures - _MEAN) / _STD, labels, groups, mosaic)


def _regions(
    draw: Draw, counts: tuple[int, int, int], size: int, single: float, shifts: Tensor
) -> Tensor:
    """Return which region each pixel of each view belongs to, ``[V, R, S, S]`` of 0 and 1."""
    mosaics, regions, _ = counts
    side = size + _REACH
    coarse = 2 + int(draw.integers(2 + size // 32))
    fields = smooth_field(draw, mosaics, regions, coarse, side)
    shaped = draw.chance(0.6, mosaics, 1, 1, 1)
    fields = torch.where(shaped, _parts(draw, mosaics, regions, side), fields)
    fields[:, :1] += torch.where(draw.chance(single, mosaics, 1, 1, 1), 1e6, 0.0)
    chosen = fields.argmax(dim=1)
    cut = [
        chosen[mosaic, top : top + size, left : left + size]
        for mosaic in range(mosaics)
        for top, left in shifts[mosaic].tolist()
    ]
    return F.one_hot(torch.stack(cut), regions).permute(0, 3, 1, 2).float()


def _parts(draw: Draw, mosaics: int, regions: int, side: int) -> Tensor:
    """Return ``[M, R, S, S]``: a ground, a half of the plane, and regions of six parts each.

    A part is a disc, an ellipse or a rectangle; the largest value takes the pixel.
    """
    y, x = pixel_grid(side)
    angle = draw.uniform(0, 2 * math.pi, mosaics, 1, 1)
    offset = draw.uniform(-0.2, 0.8, mosaics, 1, 1) * side
    layers = [torch.zeros(mosaics, side, side)]
    layers.append(torch.cos(angle) * x + torch.sin(angle) * y - offset)
    for _ in range(2, regions):
        shape = (mosaics, 6, 1, 1)
        centre = draw.uniform(-0.5, 0.5, 2, *shape) * side
        turn = torch.where(draw.chance(0.6, mosaics, 1, 1, 1), 0, draw.uniform(0, math.pi, *shape))
        stretch = torch.exp(draw.uniform(-0.8, 0.8, *shape))
        dy, dx = y - centre[0], x - centre[1]
        along = ((torch.cos(turn) * dx + torch.sin(turn) * dy) * stretch).abs()
        across = ((torch.cos(turn) * dy - torch.sin(turn) * dx) / stretch).abs()
        square = draw.chance(0.5, *shape)
        distance = torch.where(square, torch.maximum(along, across), torch.hypot(along, across))
        radius = torch.exp(draw.uniform(math.log(2), math.log(0.25 * side), *shape))
        layers.append(1e3 * (radius - distance).amax(dim=1))
    return torch.stack(layers[:regions], dim=1)


def _textures(
    bank: Tensor,
    draw: Draw,
    counts: tuple[int, int, int],
    size: int,
    shifts: Tensor,
    same_cut: Tensor,
) -> Tensor:
    """Return every region's texture over the whole of every view, ``[V, R, 3, S, S]``.

    Turn, zoom and colours belong to the region; all views have them but for a little.
    """
    mosaics, regions, views = counts
    count, canvas = mosaics * regions, bank.shape[-1]
    chosen = bank[draw.integers(len(bank), count)].float() / 255
    same = same_cut.repeat_interleave(regions)[:, None]
    jitter = torch.where(same, 0.0, 1.0)
    angle = draw.uniform(-math.pi, math.pi, count, 1) + 0.06 * jitter * draw.normal(count, views)
    zoom = draw.uniform(-0.5, 0.5, count, 1) + 0.05 * jitter * draw.normal(count, views)
    offset = draw.uniform(-1, 1, count, views, 2)
    offset = torch.where(same[..., None], offset[:, :1], offset)
    cosine, sine = torch.exp(zoom) * torch.cos(angle), torch.exp(zoom) * torch.sin(angle)
    turn = torch.stack([cosine, -sine, sine, cosine], dim=-1).view(count, views, 2, 2) / canvas
    moved = shifts.flip(2).repeat_interleave(regions, dim=0).float()
    offset = offset + 2 * (turn @ moved[..., None])[..., 0]
    affine = torch.cat([turn * size, offset[..., None]], dim=-1)
    cuts = [
        F.grid_sample(
            chosen,
            F.affine_grid(affine[:, view], [count, 3, size, size], align_corners=False),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
        for view in range(views)
    ]
    mean = chosen.mean(dim=(2, 3))[:, None, :, None, None]
    stacked = _recolour(torch.stack(cuts, dim=1), mean, draw, (mosaics, regions))
    return stacked.view(mosaics, regions, views, 3, size, size).transpose(1, 2).flatten(0, 1)


def _recolour(textures: Tensor, mean: Tensor, draw: Draw, counts: tuple[int, int]) -> Tensor:
    """Give every texture other colours; often grey, often the same mean within a mosaic.

    Args:
        textures: All views of all regions of all mosaics, ``[M * R, views, 3, S, S]``.
        mean: Their mean colours, ``[M * R, 1, 3, 1, 1]``.
        draw: Random numbers.
        counts: M and R.
    """
    mosaics, regions = counts
    count = mosaics * regions
    mixing = torch.eye(3) + 0.4 * draw.normal(count, 3, 3)
    mixing = mixing / mixing.sum(dim=2, keepdim=True).abs().clamp(min=0.5)
    grey = torch.full((3, 3), 1 / 3)
    amount = draw.uniform(0, 1, count, 1, 1) * draw.chance(0.6, count, 1, 1)
    mixing = (1 - amount) * mixing + amount * grey
    contrast = draw.uniform(0.4, 1.3, count, 1, 1)
    contrast = torch.where(draw.chance(0.3, count, 1, 1), -contrast, contrast)
    moved = (contrast * mixing)[:, None] @ (textures - mean).flatten(3)
    level = draw.uniform(0.2, 0.8, mosaics, regions, 1)
    tint = 0.12 * draw.normal(mosaics, regions, 3) * draw.chance(0.5, mosaics, regions, 1)
    target = level + tint
    near = target[:, :1] + 0.04 * draw.normal(mosaics, regions, 3)
    target = torch.where(draw.chance(0.5, mosaics, 1, 1), near, target).view(count, 1, 3, 1)
    return (moved + target).clamp(0, 1).view_as(textures)


def _photograph(views: Tensor, draw: Draw) -> Tensor:
    """Change each view's light, sharpness and noise."""
    count, size = len(views), views.shape[-1]
    y, x = pixel_grid(size)
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
