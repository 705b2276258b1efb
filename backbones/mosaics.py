"""Pictures to train on: mosaics of textures, each in two views, with small foreign marks.

Both views of a mosaic show the same regions of the same textures, cut elsewhere, in another light;
the marks (scratches, blots, stains, patches of another picture) are in one view only. So it is
known, patch by patch, which texture it shows and what should look alike.
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

__all__ = ["CLEAN", "DOUBTFUL", "MARKED", "MIXED", "Mosaics", "draw_mosaics"]

MIXED = -100  # in place of a texture's number; losses of torch leave it out
CLEAN, MARKED, DOUBTFUL = 0, 1, 2

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)  # as the plugin's data normalise
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
_VISIBLE, _INVISIBLE = 0.012, 0.003  # mean change of a patch's pixels, of 1
_REACH = 4  # shift between views, pixels
_MAJORITY = 0.6  # share of a patch that its texture must cover
_TURN, _TURN_BETWEEN = 0.1, 0.04  # deviations, radians: of a region, and of a view of it
_ZOOM, _ZOOM_BETWEEN = (-0.2, 0.15), 0.03  # logarithms


class Mosaics(NamedTuple):
    """A batch of views; those of one mosaic follow each other.

    Attributes:
        images: Normalised, ``[V, 3, S, S]``.
        textures: ``[V, P]`` long: the number in the bank of the texture that a patch shows, `MIXED`
            where it shows no single one or a mark.
        marks: ``[V, P]`` long: `CLEAN`, `MARKED`, or `DOUBTFUL` for a hardly visible mark.
        mosaic: ``[V]`` long, the number of the mosaic that a view shows.
    """

    images: Tensor
    textures: Tensor
    marks: Tensor
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
    regions: int = 4,
    single: float = 0.25,
    marked: float = 0.6,
    aligned: float = 0.4,
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
        marked: Chance of foreign marks in a view (see `marks.add_marks`).
        aligned: Share of mosaics whose views show the same cut of their textures, but for a shift
            of up to four pixels.
    """
    draw = Draw(generator)
    counts = mosaics, regions, views
    shifts = draw.integers(_REACH + 1, mosaics, views, 2)
    same_cut = draw.chance(aligned, mosaics)
    cover = _regions(draw, counts, size, single, shifts)
    chosen = draw.integers(len(bank), mosaics, regions)
    layers = _textures(bank[chosen.flatten()].float() / 255, draw, counts, size, shifts, same_cut)
    clean = (cover[:, :, None] * layers).sum(dim=1)
    images = add_marks(clean, draw, marked)
    pictures = _photograph(images, draw)
    change = F.avg_pool2d((images - clean).abs().mean(dim=1, keepdim=True), patch)[:, 0].flatten(1)
    marks = torch.full(change.shape, CLEAN)
    marks[change > _INVISIBLE] = DOUBTFUL
    marks[change > _VISIBLE] = MARKED
    mosaic = torch.arange(mosaics).repeat_interleave(views)
    share, region = F.avg_pool2d(cover, patch).flatten(2).max(dim=1)
    textures = chosen[mosaic].gather(1, region)
    textures[(share < _MAJORITY) | (marks == MARKED)] = MIXED
    return Mosaics((pictures - _MEAN) / _STD, textures, marks, mosaic)


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
    chosen: Tensor,
    draw: Draw,
    counts: tuple[int, int, int],
    size: int,
    shifts: Tensor,
    same_cut: Tensor,
) -> Tensor:
    """Return every region's texture over the whole of every view, ``[V, R, 3, S, S]``.

    Args:
        chosen: The textures in [0, 1], ``[M * R, 3, C, C]``.
        draw: Random numbers.
        counts: M, R and the views of each mosaic.
        size: S.
        shifts: Of the views, in pixels, ``[M, views, 2]``.
        same_cut: ``[M]``, whether all views of a mosaic show the same cut.
    """
    mosaics, regions, views = counts
    count, canvas = len(chosen), chosen.shape[-1]
    same = same_cut.repeat_interleave(regions)[:, None]
    jitter = torch.where(same, 0.0, 1.0)
    angle = _TURN * draw.normal(count, 1) + _TURN_BETWEEN * jitter * draw.normal(count, views)
    zoom = draw.uniform(*_ZOOM, count, 1) + _ZOOM_BETWEEN * jitter * draw.normal(count, views)
    offset = draw.uniform(-1, 1, count, views, 2) * (1 - size / canvas)
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
    stacked = torch.stack(cuts, dim=1).view(mosaics, regions, views, 3, size, size)
    return stacked.transpose(1, 2).flatten(0, 1)


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
