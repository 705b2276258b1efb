"""The tiles of a data set's images, as images that a detector is trained and tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from torch.utils.data import Dataset

from meds_plugin.data.dataset import Item
from meds_plugin.data.faults import shown
from meds_plugin.tiles import TileLayout
from meds_plugin.utils.errors import UserError, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from meds_plugin.data.dataset import ImageDataset
    from meds_plugin.encoders.normalization import Normalization
    from meds_plugin.tiles import Tiling

__all__ = ["TileDataset", "TileUnit", "checked_unit"]

TileUnit = Literal["image", "tile"]


class TileDataset(Dataset[Item]):
    """Tiles in the order of their images; the same index always gives the same tensor.

    One decoded image is kept at a time, so reading tiles in order decodes each file once.

    Args:
        images: The images.
        tiling: How they are cut. Each tile is prepared as the images' `Preprocess` says.
        sizes: Height and width of each image in pixels.
        unit: What memories and selection take or leave: an ``image`` with all its tiles, or a
            ``tile``.

    Attributes:
        whole: The images.
        layout: Which tile lies where.
        augments: See `ImageDataset`, as for the names of the tiles' images below.
        clusters: The image (or its cluster) of each tile, or the tile itself.

    Raises:
        UserError: If an image is smaller than a tile.
    """

    augments = False

    def __init__(
        self,
        images: ImageDataset,
        tiling: Tiling,
        sizes: Sequence[tuple[int, int]],
        *,
        unit: TileUnit = "image",
    ) -> None:
        self.whole = images
        for sample, (height, width) in zip(images.samples, sizes, strict=True):
            if not tiling.fits(height, width):
                msg = (
                    f"{shown(sample.path)} has {height} x {width} pixels (height, width), "
                    f"smaller than data.tiles={list(tiling.size)}: make the tiles smaller"
                )
                raise UserError(msg)
        self.layout = TileLayout(tiling, sizes)
        owners = self.layout.image.tolist()
        self.groups = [images.groups[owner] for owner in owners]
        self.categories = [images.categories[owner] for owner in owners]
        self.views = [images.views[owner] for owner in owners]
        self.injected = [images.injected[owner] for owner in owners]
        self.clusters = list(range(len(owners)))
        if unit == "image":
            together = images.clusters
            self.clusters = owners if together is None else [together[owner] for owner in owners]
        self._open: tuple[int, Image.Image] | None = None

    @property
    def normalization(self) -> Normalization:
        """How the images are normalised; it must be what the detector expects."""
        return self.whole.normalization

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.layout)

    def __getitem__(self, index: int) -> Item:
        """Return ``image`` (float32 ``[3, H, W]``, normalised) and ``index``."""
        owner = int(self.layout.image[index])
        if self._open is None or self._open[0] != owner:
            self._open = None  # before the next one is decoded
            self._open = owner, self.whole.rgb_image(owner)
        tile = cut(self._open[1], self.layout.starts[index], self.layout.tiling)
        return {"image": self.whole.preprocess(tile), "index": index}


def cut(image: Image.Image, start: tuple[int, int], tiling: Tiling) -> Image.Image:
    """Return the tile of an image that begins at a top and left pixel."""
    (top, left), (height, width) = start, tiling.size
    return image.crop((left, top, left + width, top + height))


def checked_unit(unit: object) -> TileUnit:
    """Return what memories and selection take or leave.

    Raises:
        UserError: If it is unknown.
    """
    require(unit in get_args(TileUnit), "data.tile_unit", "image or tile", unit)
    return "image" if unit == "image" else "tile"
