"""The Lightning data module: from a source of images to loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset, Item
from meds_plugin.data.prepare import DataSettings, prepare
from meds_plugin.data.samples import Split
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.data.noise import NoiseReport
    from meds_plugin.data.prepare import Prepared
    from meds_plugin.data.samples import Problem, Sample
    from meds_plugin.data.transforms import Size
    from meds_plugin.encoders.normalization import Normalization

__all__ = ["AnomalyDataModule", "ManifestRow"]


class ManifestRow(NamedTuple):
    """One training image: its name, and whether it was injected (``None``: unknown)."""

    path: str
    category: str
    injected: bool | None


class _Loaded(NamedTuple):
    train: ImageDataset
    test: ImageDataset
    prepared: Prepared


class AnomalyDataModule(L.LightningDataModule):
    """Read, check and contaminate images once, then serve them in a fixed order.

    Everything happens at the first `setup`, or at the first use of an attribute that needs it.

    Args:
        source: The images, or what gives them when called without arguments, e.g.
            ``functools.partial(read_mvtec, "mvtec_ad", ["bottle"])``.
        image_size: See `Preprocess`.
        crop: See `Preprocess`.
        settings: Contamination, exclusion, and what to do about unusable files; default: the
            images as they are, all of which must be usable.
        seed: The run's seed; only the choice of added images depends on it.
        batch_size: Images a batch.
        num_workers: Processes that read images; 0 reads in the main one.
        normalization: See `Preprocess`; `MeDSWrapper.normalization` is what a detector wants.

    Attributes:
        preprocess: From images to tensors; its normalization may be set before any image is read.

    Raises:
        UserError: If an argument is wrong; from `setup`, if the images are.
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
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(image_size, crop, normalization=normalization)
        self.batch_size = _at_least(1, batch_size, "data.batch_size")
        self.num_workers = _at_least(0, num_workers, "data.num_workers")
        self._source = source
        self._settings = settings or DataSettings()
        self._seed = seed
        self._loaded: _Loaded | None = None

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the same for all stages
        """Read, check and contaminate the images; further calls do nothing."""
        self._load()

    @property
    def train(self) -> ImageDataset:
        """The training images."""
        return self._load().train

    @property
    def test(self) -> ImageDataset:
        """The test images; there may be none."""
        return self._load().test

    @property
    def noise_report(self) -> NoiseReport:
        """What contamination was asked for and reached."""
        return self._load().prepared.noise

    @property
    def skipped(self) -> list[Problem]:
        """Images that are left out because they cannot be used."""
        return self._load().prepared.skipped

    @property
    def summary(self) -> str:
        """What was found, as text: a table of categories, what is missing, duplicates."""
        return self._load().prepared.summary

    def train_dataloader(self) -> DataLoader[Item]:
        """Return the training images in order; the training stream shuffles and selects."""
        return self._loader(self.train)

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the test images in order."""
        return self._loader(self.test)

    def manifest_rows(self) -> list[ManifestRow]:
        """Return exactly what is trained on, in order."""
        return [ManifestRow(s.path, s.category, s.injected) for s in self.train.samples]

    def _load(self) -> _Loaded:
        if self._loaded is None:
            source = self._source
            found = source if isinstance(source, Split) else source()
            prepared = prepare(found, self._settings, seed=self._seed)
            _require_own_names(prepared.split.train, "training")
            _require_own_names(prepared.split.test, "test")
            limit = {"max_pixels": self._settings.max_pixels}
            self._loaded = _Loaded(
                ImageDataset(prepared.split.train, self.preprocess, **limit),
                ImageDataset(prepared.split.test, self.preprocess, **limit),
                prepared,
            )
        return self._loaded

    def _loader(self, dataset: ImageDataset) -> DataLoader[Item]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=False,
            num_workers=self.num_workers,
            # Without one of its own, every pass would draw from the global generator.
            generator=torch_generator(self._seed, "loader"),
        )


def _at_least(least: int, value: int, key: str) -> int:
    if not isinstance(value, int) or value < least:
        msg = f"{key} must be a whole number of at least {least}, got {value!r}"
        raise UserError(msg)
    return value


def _require_own_names(samples: Sequence[Sample], kind: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.path in seen:
            msg = f"two {kind} images are named {sample.path}; give each a name of its own"
            raise ValueError(msg)
        seen.add(sample.path)
