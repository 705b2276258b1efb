"""Images are cut into tiles that cover them, and maps of tiles are stitched without seams."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from meds_plugin.tiles import TileLayout, Tiling
from meds_plugin.utils.errors import UserError


@pytest.mark.parametrize("size", [(100, 100), (101, 180), (399, 260), (1000, 137)])
def test_tiles_cover_the_image_and_share_the_overlap(size: tuple[int, int]) -> None:
    tiling = Tiling.of([100, 60], [20, 7])
    seen = torch.zeros(size)
    starts = tiling.starts(*size)
    for top, left in starts:
        assert top + 100 <= size[0]
        assert left + 60 <= size[1]
        seen[top : top + 100, left : left + 60] += 1
    assert seen.min() >= 1
    for axis, (side, shared) in enumerate(zip((100, 60), (20, 7), strict=True)):
        places = sorted({start[axis] for start in starts})
        assert all(b - a <= side - shared for a, b in itertools.pairwise(places))
        # One tile fewer would not do.
        assert len(places) == 1 or (len(places) - 2) * (side - shared) + side < size[axis]


@pytest.mark.parametrize("overlap", [None, 0, 12, [24, 48]])
def test_maps_without_context_are_stitched_exactly(overlap: Any) -> None:
    image = torch.rand(333, 410, generator=torch.Generator().manual_seed(0))
    tiling = Tiling.of([128, 96], overlap)
    maps = torch.stack([image[a : a + 128, b : b + 96] for a, b in tiling.starts(333, 410)])
    found = tiling.stitch(maps, (333, 410), (333, 410))
    torch.testing.assert_close(found, image, atol=1e-5, rtol=0)


def test_there_are_no_seams_where_the_context_is_a_third_of_the_overlap() -> None:
    image = torch.rand(300, 310, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def blurred(pixels: torch.Tensor) -> torch.Tensor:
        """A detector that looks eight pixels around, and sees black beyond its image."""
        kernel = torch.ones(1, 1, 17, 17, dtype=torch.float64) / 289
        return F.conv2d(pixels[None, None], kernel, padding=8)[0, 0]

    for overlap, seam in ((24, 1e-6), (0, 0.2)):
        tiling = Tiling.of(128, overlap)
        starts = tiling.starts(300, 310)
        maps = torch.stack([blurred(image[a : a + 128, b : b + 128]) for a, b in starts])
        found = tiling.stitch(maps, (300, 310), (300, 310))
        difference = float((found - blurred(image)).abs().max())
        assert (difference < 1e-6) == (seam == 1e-6)
        assert difference < 0.5


def test_coarse_maps_are_stitched_to_any_size() -> None:
    layout = TileLayout(Tiling.of(64, 16), [(64, 64), (200, 160)])
    assert layout.image.tolist() == [0] + [1] * (len(layout) - 1)
    # Every tile's map holds the column of the image at its cells' centres.
    maps = torch.stack(
        [left + (torch.arange(8.0) + 0.5).expand(8, 8) * 8 for _, left in layout.starts]
    )
    for side in (5, 50, 320):
        found = layout.stitch(maps[layout.tiles([1])], 1, side)
        columns = (torch.arange(side) + 0.5) * 160 / side
        inner = (columns > 4) & (columns < 156)
        torch.testing.assert_close(found[0, inner], columns[inner], atol=1e-3, rtol=0)
        assert float((found - found[0]).abs().max()) < 1e-3


def test_a_layout_knows_whose_tiles_they_are() -> None:
    layout = TileLayout(Tiling.of(10, 0), [(10, 30), (10, 10), (20, 20)])
    assert layout.image.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert layout.tiles([2, 0]) == [4, 5, 6, 7, 0, 1, 2]
    values = torch.tensor([1.0, 5, 2, 3, 0, 0, 4, 1])
    assert layout.highest(values).tolist() == [5, 3, 4]
    some = layout.tiles([2, 1])
    assert layout.highest(values[some], [2, 1]).tolist() == [4, 3]
    assert layout.complete(torch.tensor([0, 2, 3, 7, 6, 5, 4])) == [3, 4]
    assert layout.tile_share(2) == 0.25


@pytest.mark.parametrize(
    ("size", "overlap", "word"),
    [
        (0, None, "data.tiles"),
        ("64", None, "data.tiles"),
        ([64, 64, 64], None, "data.tiles"),
        (64.0, None, "data.tiles"),
        (64, -1, "data.overlap"),
        (64, 33, "more than half"),
        ([64, 32], [1, 17], "more than half"),
        (64, True, "data.overlap"),
    ],
)
def test_wrong_sizes_are_refused(size: Any, overlap: Any, word: str) -> None:
    with pytest.raises(UserError, match=word):
        Tiling.of(size, overlap)


def test_an_image_smaller_than_a_tile_is_refused() -> None:
    with pytest.raises(UserError, match=r"63 x 90 pixels is smaller than a tile of \[64, 64\]"):
        Tiling.of(64).starts(63, 90)
