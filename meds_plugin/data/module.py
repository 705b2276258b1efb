"""The Lightning data module: from a source of images to loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset, Item
from meds_plugin.data.images import check_samples
from meds_plugin.data.noise import NoiseReport, checked_ratio, contaminate
from meds_plugin.data.samples import Split
from meds_plugin.data.transforms import Preprocess
from meds_plugin.errors import UserError
from meds_plugin.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.data.samples import Sample
    from meds_plugin.data.transforms import Size

__all__ = ["AnomalyDataModule", "ManifestRow"]


class ManifestRow(NamedTuple):
    """One training image: its name, and whether it was injected (``None``: unknown)."""

    path: str
    category: str
    injected: bool | None


class _Loaded(NamedTuple):
    train: ImageDataset
    test: ImageDataset
    noise_report: NoiseReport


class AnomalyDataModule(L.LightningDataModule):
    """Read, contaminate and check images once, then serve them in a fixed order.

    Everything happens at the first `setup`, or at the first use of an attribute that needs it.

    Args:
        source: The images, or what gives them when called without arguments, e.g.
            ``functools.partial(read_mvtec, "mvtec_ad", ["bottle"])``.
        noise: Share of defective images to add to the training images (see `contaminate`).
        noise_protocol: ``overlap`` or ``no_overlap``.
        seed: The run's seed; only the choice of added images depends on it.
        image_size: See `Preprocess`.
        crop: See `Preprocess`.
        batch_size: Images a batch.
        num_workers: Processes that read images; 0 reads in the main one.
        check: Decode every file once beforehand (see `check_samples`).

    Raises:
        UserError: If an argument is wrong; from `setup`, if the images are.
    """

    def __init__(
        self,
        *,
        source: Split | Callable[[], Split],
        image_size: Size,
        crop: Size | None = None,
        noise: float | None = None,
        noise_protocol: str = "overlap",
        seed: int = 0,
        batch_size: int = 16,
        num_workers: int = 0,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(image_size, crop)
        self.batch_size = _at_least(1, batch_size, "data.batch_size")
        self.num_workers = _at_least(0, num_workers, "data.num_workers")
        self._source = source
        self._noise = None if noise is None else checked_ratio(noise)
        self._noise_protocol = noise_protocol
        self._seed = seed
        self._check = check
        self._loaded: _Loaded | None = None

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the same for all stages
        """Read, contaminate and check the images; further calls do nothing."""
        self._load()

    @property
    def train(self) -> ImageDataset:
        """The training images, injected ones last."""
        return self._load().train

    @property
    def test(self) -> ImageDataset:
        """The test images."""
        return self._load().test

    @property
    def noise_report(self) -> NoiseReport:
        """What contamination was asked for and reached."""
        return self._load().noise_report

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
            read = source if isinstance(source, Split) else source()
            split, report = contaminate(
                read, self._noise, protocol=self._noise_protocol, seed=self._seed
            )
            _require_names(split.train, "training")
            _require_names(split.test, "test")
            if self._check:
                check_samples([*split.train, *split.test])
            self._loaded = _Loaded(
                ImageDataset(split.train, self.preprocess),
                ImageDataset(split.test, self.preprocess),
                report,
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


def _require_names(samples: Sequence[Sample], kind: str) -> None:
    if not samples:
        msg = f"there are no {kind} images; name a data set that has some in data.root"
        raise UserError(msg)
    seen: set[str] = set()
    for sample in samples:
        if sample.path in seen:
            msg = f"two {kind} images are named {sample.path}; give each a name of its own"
            raise ValueError(msg)
        seen.add(sample.path)
