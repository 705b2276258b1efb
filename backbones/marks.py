"""Foreign marks: scratches, blots, stains and pieces of other pictures, in pictures of any kind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Generator

__all__ = ["Draw", "add_marks", "pixel_grid", "smooth_field"]


class Draw:
    """Random numbers of one batch, all from one generator, on the CPU.

    Args:
        generator: Where they come from.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and variance 1."""
        return torch.randn(shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return whole numbers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator)

    def chance(self, share: float, *shape: int) -> Tensor:
        """Return true with a probability."""
        return torch.rand(shape, generator=self.generator) < share


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """Return y ``[S, 1]`` and x ``[1, S]`` in pixels from the centre."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    return axis[:, None], axis[None]


def smooth_field(draw: Draw, count: int, channels: int, coarse: int, size: int) -> Tensor:
    """Return smooth noise ``[N, C, S, S]`` with about ``coarse`` bumps across."""
    field = draw.normal(count, channels, coarse, coarse)
    return F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)


def add_marks(clean: Tensor, draw: Draw, marked: float) -> Tensor:
    """Put foreign marks into a share of the pictures: up to two, in larger ones more.

    Args:
        clean: ``[V, 3, S, S]`` in [0, 1].
        draw: Random numbers.
        marked: Chance of a first mark for each 64 pixels of the side; a second has half of it.

    Returns:
        The pictures with the marks, in [0, 1].
    """
    views, size = len(clean), clean.shape[-1]
    result = clean
    for share in (marked, marked / 2) * max(1, size // 64):
        alpha = _shapes(draw, views, size) * draw.uniform(0.35, 1, views, 1, 1, 1)
        alpha = alpha * draw.chance(share, views, 1, 1, 1)
        result = result + alpha * (_fillings(result, draw) - result)
    return result.clamp(0, 1)


def _shapes(draw: Draw, views: int, size: int) -> Tensor:
    """Return a curved stroke, a blot or a ragged spot a view, ``[V, 1, S, S]`` in [0, 1]."""
    y, x = pixel_grid(size)
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
    ragged = smooth_field(draw, views, 1, max(4, size // 6), size)[:, 0]
    ragged = ragged * draw.chance(0.5, views, 1, 1) * 0.4 * radius
    blot = torch.hypot(along, across) - radius + ragged
    distance = torch.where(draw.chance(0.45, views, 1, 1), stroke, blot)
    soft = torch.exp(draw.uniform(-1.2, 0.7, views, 1, 1))
    return torch.sigmoid(-distance / soft)[:, None]


def _fillings(views: Tensor, draw: Draw) -> Tensor:
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
    options = (foreign, plain, stain, plain, foreign, blurred, displaced, stain)
    kinds = draw.integers(len(options), count).tolist()
    return torch.stack([options[kind][view] for view, kind in enumerate(kinds)])
