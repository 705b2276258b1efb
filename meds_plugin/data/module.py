"""The Lightning data module: from a source of images to data loaders."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset, Item
from meds_plugin.data.prepare import DataSettings, prepare
from meds_plugin.data.samples import Split
from meds_plugin.data.tile_dataset import TileDataset, checked_unit
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.data.image_faults import ImageFaults
    from meds_plugin.data.noise import NoiseReport
    from meds_plugin.data.prepare import Prepared
    from meds_plugin.data.samples import Problem, Sample
    from meds_plugin.data.tile_dataset import TileUnit
    from meds_plugin.data.transforms import Size
    from meds_plugin.encoders.normalization import Normalization
    from meds_plugin.tiles import Tiling

__all__ = ["AnomalyDataModule", "ManifestRow"]


class ManifestRow(NamedTuple):
    """One training image.

    Attributes:
        path: Its name.
        category: Its category.
        injected: Whether it was injected; ``None``: unknown.
        digest: See `ImageFacts`; ``None``: the image was not checked.
    """

    path: str
    category: str
    injected: bool | None
    digest: str | None = None


class AnomalyDataModule(L.LightningDataModule):
    """Finds, checks and contaminates images once, then serves them in a fixed order.

    This happens at the first `setup`, or at the first use of an attribute that needs it.

    Args:
        source: The images, or a function without arguments that returns them, such as
            ``functools.partial(read_mvtec, "mvtec_ad", ["bottle"])``.
        image_size: See `Preprocess`.
        crop: See `Preprocess`.
        settings: Contamination, exclusion and unusable files; default: the images as they are, all
            of which must be usable.
        seed: The run's seed; only the choice of injected images depends on it.
        batch_size: Images per batch.
        num_workers: Processes that read images; 0: the main process.
        normalization: See `Preprocess`; `MeDSWrapper.normalization` is what the detector expects.
        validate: Whether a fit validates on the test images, as often as its trainer says.
        tiling: Cut the images into tiles, each of which is preprocessed like an image.
        tile_unit: See `TileDataset`.
        group_duplicates: Count near-duplicates among the training images as one in memories and
            selection; needs ``settings.check``.

    Attributes:
        preprocess: Turns images into tensors; its normalization may be changed before images are
            read. `setup` sets its range of values.

    Raises:
        UserError: If an argument is wrong; in `setup`, if the images are.
    """

    def __init__(
        self,
        *,
        source: Split | Callable[[], Split],
        image_size: Size,
        crop: Size | None = None,
        settings: DataSettings | None = None,
        seed: int = 0,
        batch_size: int = 16,
        num_workers: int = 0,
        normalization: Normalization = IMAGENET,
        validate: bool = False,
        tiling: Tiling | None = None,
        tile_unit: TileUnit = "image",
        group_duplicates: bool = False,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(image_size, crop, normalization=normalization)
        self.batch_size = _at_least(1, batch_size, "data.batch_size")
        self.num_workers = _at_least(0, num_workers, "data.num_workers")
        self.validate = validate
        self.tiling = tiling
        self.tile_unit = checked_unit(tile_unit)
        self.group_duplicates = group_duplicates
        self._source = source
        self._settings = settings or DataSettings()
        self._seed = seed

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the same for all stages
        """Find, check and contaminate the images; further calls do nothing."""
        _ = self._train_items, self._test_items

    @cached_property
    def train(self) -> ImageDataset:
        """The training images."""
        faults = self._prepared.faults if self.group_duplicates else None
        return self._dataset(self._prepared.split.train, None if faults is None else faults.groups)

    @cached_property
    def test(self) -> ImageDataset:
        """The test images; there may be none."""
        return self._dataset(self._prepared.split.test)

    @property
    def noise_report(self) -> NoiseReport:
        """The contamination asked for and achieved."""
        return self._prepared.noise

    @property
    def skipped(self) -> list[Problem]:
        """Images left out because they cannot be used."""
        return self._prepared.skipped

    @property
    def summary(self) -> str:
        """A description of the data set (see `inventory_table`)."""
        return self._prepared.summary

    @property
    def faults(self) -> ImageFaults | None:
        """Faults of the training images that can be read; ``None`` if they were not checked."""
        return self._prepared.faults

    def train_dataloader(self) -> DataLoader[Item]:
        """Return the training images in order, or their tiles; selection comes later."""
        return self._loader(self._train_items)

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the test images, or their tiles, in order."""
        return self._loader(self._test_items)

    def predict_dataloader(self) -> DataLoader[Item]:
        """Return the test images in order."""
        return self.test_dataloader()

    def val_dataloader(self) -> DataLoader[Item] | list[Any]:
        """Return the test images for ``trainer.validate``; in a fit only with ``validate=True``."""
        # What Lightning says of the empty list.
        warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return [] if fitting and not self.validate else self.test_dataloader()

    def manifest_rows(self) -> list[ManifestRow]:
        """Return the rows of ``manifest.csv``: exactly what is trained on, in order."""
        report = self._prepared.report
        facts = [report.facts_of(sample) if report else None for sample in self.train.samples]
        return [
            ManifestRow(s.path, s.category, s.injected, known.digest if known else None)
            for s, known in zip(self.train.samples, facts, strict=True)
        ]

    @cached_property
    def _prepared(self) -> Prepared:
        found = self._source if isinstance(self._source, Split) else self._source()
        prepared = prepare(found, self._settings, seed=self._seed)
        _require_unique_names(prepared.split.train, "training")
        _require_unique_names(prepared.split.test, "test")
        self.preprocess.value_range = prepared.value_range
        return prepared

    def _dataset(
        self, samples: Sequence[Sample], clusters: Sequence[int] | None = None
    ) -> ImageDataset:
        settings = self._settings
        return ImageDataset(
            samples,
            self.preprocess,
            max_pixels=settings.max_pixels,
            mask_values=settings.mask_values,
            clusters=clusters,
        )

    @cached_property
    def _train_items(self) -> ImageDataset | TileDataset:
        return self._tiled(self.train)

    @cached_property
    def _test_items(self) -> ImageDataset | TileDataset:
        return self._tiled(self.test)

    def _tiled(self, images: ImageDataset) -> ImageDataset | TileDataset:
        if self.tiling is None:
            return images
        report = self._prepared.report
        known = [report.facts_of(sample) if report else None for sample in images.samples]
        sizes = [
            (facts.height, facts.width) if facts else images.rgb_image(place).size[::-1]
            for place, facts in enumerate(known)
        ]
        return TileDataset(images, self.tiling, sizes, unit=self.tile_unit)

    def _loader(self, items: ImageDataset | TileDataset) -> DataLoader[Item]:
        return DataLoader(
            items,
            batch_size=self.batch_size,
            shuffle=False,
            num_workers=self.num_workers,
            # Without its own, every pass would advance the global generator.
            generator=torch_generator(self._seed, "loader"),
        )


def _at_least(least: int, value: int, key: str) -> int:
    if not isinstance(value, int) or value < least:
        msg = f"{key} must be a whole number of at least {least}, got {value!r}"
        raise UserError(msg)
    return value


def _require_unique_names(samples: Sequence[Sample], kind: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.path in seen:
            msg = f"two {kind} images are named {sample.path}; give each its own name"
            raise ValueError(msg)
        seen.add(sample.path)
