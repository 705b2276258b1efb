"""Reads images of a user's data loader by index, in any order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from meds_plugin.encoders.normalization import Normalization
from meds_plugin.tiles import TileLayout
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import Clusters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ImageReader", "images_of", "views_of"]

_DIFFERENT_SIZES = (
    "training images differ in size ({} and {}): resize them to one size in the data set"
)


class ImageReader:
    """Random access, in batches, to the images behind a data loader.

    The loader provides the data set, the batch size and the worker settings; its order and sampler
    are not used. A data set may describe its images by attributes with one name per image:
    ``groups``, within which images are selected; ``categories``, whose images form each other's
    memories (default: the groups); ``views``, each of which every memory samples; ``clusters``,
    whose images count as one in memories and are selected together. An attribute
    ``augments`` says whether an image changes each time it is read; ``normalization``, how images
    are normalised (see `Normalization`), which is checked. If ``injected`` is known of all images,
    reports count the contaminated ones; nothing else uses it. Where the items are tiles of larger
    images, an attribute ``layout`` says of which (see `TileLayout`).

    Args:
        loader: A `torch.utils.data.DataLoader` over a map-style data set.

    Raises:
        TypeError: If it is not.
        ValueError: If the data set is empty, or an attribute does not match its length.
    """

    def __init__(self, loader: object) -> None:
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            msg = (
                "training needs one torch DataLoader over a map-style data set (with __len__ and "
                f"__getitem__), because images are chosen by index; got {type(loader).__name__}"
            )
            raise TypeError(msg)
        dataset: Any = loader.dataset
        size = len(dataset)
        if size == 0:
            msg = "the training data set is empty"
            raise ValueError(msg)
        self.groups = _names(dataset, "groups", size) or ["all"] * size
        self.categories = _names(dataset, "categories", size) or self.groups
        self.views = _names(dataset, "views", size)
        clusters = _names(dataset, "clusters", size) or range(size)
        layout = getattr(dataset, "layout", None)
        self.layout = layout if isinstance(layout, TileLayout) else None
        names = [*zip(self.groups, clusters, strict=True)]
        self.clusters = Clusters(names, self.layout.image if self.layout else None)
        # Data sets may use these names for something else.
        augments = _attribute(dataset, "augments")
        self.augments = augments if isinstance(augments, bool) else None
        normalization = _attribute(dataset, "normalization")
        self.normalization = normalization if isinstance(normalization, Normalization) else None
        truth = _names(dataset, "injected", size)
        known = truth is not None and set(truth) <= {"True", "False"}
        self.injected = [name == "True" for name in truth] if truth and known else None
        own_batches: Any = loader.batch_sampler
        self.batch_size = int(loader.batch_size or getattr(own_batches, "batch_size", 0) or 16)
        self._plan = _Plan()
        self._shape: list[int] | None = None
        workers = loader.num_workers
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            persistent_workers=workers > 0,
            prefetch_factor=loader.prefetch_factor,
            # Without its own generator, each pass would sample from the global one.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.groups)

    def batches(self, plan: Sequence[Sequence[int]]) -> Iterator[Any]:
        """Read the images of each index list as one batch, in order.

        Args:
            plan: Image indices of every batch.

        Yields:
            What the user's loader would yield for those images.
        """
        if not plan:
            return
        self._plan.batches = plan
        try:
            yield from self._loader
        except RuntimeError as error:  # of the collate function, perhaps in a worker
            shapes = re.search(
                r"equal size, but got (\[.*?\]) at entry \d+ and (\[.*?\])", str(error)
            )
            if shapes is None:
                raise
            raise UserError(_DIFFERENT_SIZES.format(*shapes.groups())) from error

    def images(self, batch: Any) -> Tensor:
        """Find the images in a batch of this reader, as `images_of` does.

        Raises:
            UserError: If earlier batches had images of another size.
        """
        found = images_of(batch)
        shape = list(found.shape[1:])
        self._shape = self._shape or shape
        if shape != self._shape:
            raise UserError(_DIFFERENT_SIZES.format(self._shape, shape))
        return found


class _Plan:
    """A batch sampler whose batches are set from outside before each pass."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([int(i) for i in batch] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def images_of(batch: Any) -> Tensor:
    """Find the images in a batch: itself, its first item, its ``image`` key or attribute.

    Returns:
        ``[B, 3, H, W]``, float32.

    Raises:
        TypeError: If there is no floating-point tensor.
        UserError: If it has another shape.
    """
    found = batch
    if isinstance(batch, (tuple, list)) and batch:
        found = batch[0]
    elif isinstance(batch, dict):
        found = batch.get("image", batch.get("images"))
    elif not isinstance(batch, Tensor):
        found = getattr(batch, "image", None)
    if not isinstance(found, Tensor):
        msg = (
            "a training batch must be a tensor of images, a tuple that starts with one, or have an "
            f"'image' key or attribute; got {type(batch).__name__}"
        )
        raise TypeError(msg)
    if not found.is_floating_point():
        msg = (
            f"training images must be floating-point and normalised, got {found.dtype}: convert "
            "them in the data set, e.g. with (image / 255 - mean) / std"
        )
        raise TypeError(msg)
    if found.ndim != 4 or found.shape[1] != 3:
        msg = (
            f"training images must be [B, 3, H, W], got {list(found.shape)}: make them RGB in the "
            "data set, grey ones with image.expand(3, -1, -1)"
        )
        raise UserError(msg)
    return found.float()


def views_of(reader: ImageReader, members: Sequence[int]) -> list[str] | None:
    """Return the views of some images; ``None`` if the data set has no views."""
    return None if reader.views is None else [reader.views[index] for index in members]


def _attribute(dataset: Any, name: str) -> Any:
    """Return an attribute of a data set or of the one it is a subset of, else ``None``."""
    while isinstance(dataset, Subset) and not hasattr(dataset, name):
        dataset = dataset.dataset
    return getattr(dataset, name, None)


def _names(dataset: Any, attribute: str, size: int) -> list[str] | None:
    """Return an attribute with one name per image, or ``None``."""
    if isinstance(dataset, Subset) and not hasattr(dataset, attribute):
        inner: Any = dataset.dataset
        whole = _names(inner, attribute, len(inner))
        return whole and [whole[int(index)] for index in dataset.indices]
    given = getattr(dataset, attribute, None)
    if given is None or all(name is None for name in given):
        return None
    names = [str(name) for name in given]
    if len(names) != size:
        msg = f"the data set has {size} images but its {attribute} name {len(names)}"
        raise ValueError(msg)
    return names
