"""Large images as overlapping tiles, and the tiles' anomaly maps as maps of whole images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["TileLayout", "Tiling"]

_OVERLAP = 8  # by default, neighbours share one part in eight of a tile


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Tiles begin at evenly spaced pixels, from edge to edge of the image, as few as possible with at
    least the overlap between neighbours.

    Attributes:
        size: Height and width of a tile in pixels of the image file.
        overlap: Minimum number of rows and columns that neighbours share.

    Raises:
        UserError: If a value is out of range; the message names ``data.tiles`` or ``data.overlap``.
    """

    size: tuple[int, int]
    overlap: tuple[int, int]

    @classmethod
    def of(cls, size: object, overlap: object = None) -> Tiling:
        """Make a tiling from a configuration's values.

        Args:
            size: One number for square tiles, or height and width.
            overlap: Likewise; default: an eighth of the tile.

        Raises:
            UserError: If a value is out of range.
        """
        height, width = _pair(size, "data.tiles", least=1)
        shared = (height // _OVERLAP, width // _OVERLAP)
        if overlap is not None:
            shared = _pair(overlap, "data.overlap", least=0)
        if 2 * shared[0] > height or 2 * shared[1] > width:
            msg = f"data.overlap={list(shared)} is more than half of data.tiles={[height, width]}"
            raise UserError(msg)
        return cls((height, width), shared)

    def fits(self, height: int, width: int) -> bool:
        """Whether an image is at least as large as a tile."""
        return height >= self.size[0] and width >= self.size[1]

    def starts(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the top and left pixel of every tile of an image, row by row.

        Raises:
            UserError: If the image is smaller than a tile.
        """
        if not self.fits(height, width):
            msg = (
                f"an image of {height} x {width} pixels is smaller than a tile of {list(self.size)}"
            )
            raise UserError(msg)
        rows, columns = (
            _spaced(length, side, shared)
            for length, side, shared in zip((height, width), self.size, self.overlap, strict=True)
        )
        return [(top, left) for top in rows for left in columns]

    def stitch(self, maps: Tensor, image: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Put the maps of an image's tiles together.

        Each map is resized bilinearly to its place. Where tiles overlap, one fades into the other
        in the middle third: a detector sees less of the surroundings near the edge of a tile.

        Args:
            maps: ``[T, h, w]`` of the tiles in the order of `starts`, higher = more anomalous.
            image: Height and width of the image in pixels.
            size: Height and width of the result.

        Returns:
            ``[H, W]``, float32 or more, on the device of the maps.
        """
        starts = self.starts(*image)
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        total = maps.new_zeros(size)
        weight = maps.new_zeros(size)
        for tile, start in zip(maps, starts, strict=True):
            axes = [
                _Axis(start[a], self.size[a], image[a], size[a], tile.shape[a], self.overlap[a])
                for a in (0, 1)
            ]
            if any(len(axis.cells) == 0 for axis in axes):
                continue
            part = axes[1].interpolated(axes[0].interpolated(tile).T).T
            share = axes[0].weights.to(maps)[:, None] * axes[1].weights.to(maps)
            place = axes[0].place, axes[1].place
            total[place] += part * share
            weight[place] += share
        return total / weight


class TileLayout:
    """The tiles of N images, one after another.

    Args:
        tiling: How images are cut.
        sizes: Height and width of each image in pixels.

    Attributes:
        tiling: As given.
        sizes: As given.
        starts: Top and left pixel of all T tiles in their images.
        image: ``[T]`` the image of each tile, ascending.
    """

    def __init__(self, tiling: Tiling, sizes: Sequence[tuple[int, int]]) -> None:
        self.tiling = tiling
        self.sizes = list(sizes)
        each = [tiling.starts(*size) for size in self.sizes]
        self.starts = [start for some in each for start in some]
        counts = torch.tensor([len(some) for some in each], dtype=torch.int64)
        self.image = torch.arange(len(each)).repeat_interleave(counts)
        self._first = [0, *counts.cumsum(0).tolist()]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.starts)

    def tiles(self, images: Iterable[int]) -> list[int]:
        """Return the tiles of some images, image by image."""
        return [t for i in images for t in range(self._first[i], self._first[i + 1])]

    def highest(self, values: Tensor, images: Sequence[int] | None = None) -> Tensor:
        """Return the highest of the values ``[t]`` of each image's tiles.

        Args:
            values: One for each tile of the images.
            images: Which; default: all N.

        Returns:
            ``[len(images)]``.
        """
        wanted = range(len(self.sizes)) if images is None else images
        counts = [self._first[i + 1] - self._first[i] for i in wanted]
        return torch.stack([part.amax() for part in values.split(counts)])

    def complete(self, tiles: Tensor) -> list[int]:
        """Return the first tile of each image all of whose tiles are among the given ones."""
        given = set(tiles.tolist())
        owned = zip(self._first[:-1], self._first[1:], strict=True)
        return [first for first, end in owned if given.issuperset(range(first, end))]

    def stitch(self, maps: Tensor, image: int, side: int) -> Tensor:
        """Return the map ``[side, side]`` of an image, given those of its tiles, ``[T, h, w]``."""
        return self.tiling.stitch(maps, self.sizes[image], (side, side))

    def tile_share(self, image: int) -> float:
        """Return a tile's share of the area of an image."""
        (height, width), (h, w) = self.sizes[image], self.tiling.size
        return (h * w) / (height * width)


class _Axis:
    """Where a tile lies along one side of a stitched map.

    Args:
        start: First pixel of the tile in the image.
        length: Pixels of the tile.
        image: Pixels of the image.
        cells: Cells of the stitched map.
        values: Cells of the tile's map.
        overlap: Pixels that neighbours share.
    """

    def __init__(
        self, start: int, length: int, image: int, cells: int, values: int, overlap: int
    ) -> None:
        centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * image / cells
        self.cells = torch.nonzero((centres >= start) & (centres < start + length)).flatten()
        within = centres[self.cells] - start
        position = (within / length * values - 0.5).clamp(0, values - 1)
        self._first = position.long().clamp(max=max(0, values - 2))
        self._second = (self._first + 1).clamp(max=values - 1)
        self._share = position - self._first
        self.weights = torch.ones_like(within)
        # Small but not 0, for where no other tile reaches.
        for edge, distance in ((start > 0, within), (start + length < image, length - within)):
            if edge and overlap > 0:
                self.weights *= (3 * distance / overlap - 1).clamp(1e-9, 1)

    @cached_property
    def place(self) -> slice:
        """The tile's cells in the stitched map."""
        return slice(int(self.cells[0]), int(self.cells[-1]) + 1)

    def interpolated(self, values: Tensor) -> Tensor:
        """Interpolate along the first dimension."""
        share = self._share.to(values)[:, None]
        return values[self._first] * (1 - share) + values[self._second] * share


def _spaced(length: int, side: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side of an image."""
    count = 1 - (side - length) // (side - overlap)  # rounded up
    last = length - side
    return [0] if count == 1 else [round(place * last / (count - 1)) for place in range(count)]


def _pair(value: object, key: str, *, least: int) -> tuple[int, int]:
    values: list[Any] = list(value) if is_list(value) else [value, value]
    if len(values) != 2 or not all(is_whole(each) and each >= least for each in values):
        msg = f"{key} must be a whole number of pixels >= {least} or [height, width], got {value!r}"
        raise UserError(msg)
    return values[0], values[1]
