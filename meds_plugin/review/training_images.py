"""Finds the image files of a finished run again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.config.build import build, build_preprocess, check_targets, plain
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.injection import repeat_variation
from meds_plugin.data.samples import Sample
from meds_plugin.runs.read import read_config
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omegaconf import DictConfig

__all__ = ["SourceImages", "data_root", "find_source_images", "find_training_images"]

_MISSING = Sample("", "", None, Path(os.devnull, "missing"))  # cannot be read


class SourceImages(NamedTuple):
    """The images that the data set of a run holds now.

    Attributes:
        samples: By name; where a training and a test image share one, the training image.
        tests: Files of the test images, links resolved.
        root: The folder of the data set; ``None``: made in code, or of an installed package.
        seed: The run's seed.
    """

    samples: Mapping[str, Sample]
    tests: frozenset[str]
    root: Path | None
    seed: int

    def original(self, name: str) -> Sample | None:
        """Return the image of a name; for a repeat that a noise protocol made, its original."""
        return self.samples.get(name) or self.samples.get(_parts(name)[0])

    def trained(self, name: str) -> Sample:
        """Return an image as it was trained on, repeats turned and scaled.

        One that is gone fails when it is read.
        """
        if name in self.samples:
            return self.samples[name]
        sample, number = self.original(name), _parts(name)[1]
        if sample is None or not number.isdecimal():
            return replace(_MISSING, path=name)
        return replace(
            sample, path=name, variation=repeat_variation(sample, int(number), self.seed)
        )


def find_source_images(run: Path) -> SourceImages:
    """Search the data set that a run was trained on.

    Args:
        run: The run's folder.

    Raises:
        UserError: If the folder has no configuration, or one that calls unknown code; or the data
            set is not where it was.
    """
    config = read_config(run)
    data = config.data
    check_targets(plain(data.source), run / "config.yaml")
    split = build(data.source)()
    tests = (sample.image for sample in split.test)
    return SourceImages(
        {sample.path: sample for sample in [*split.test, *split.train]},
        frozenset(os.path.realpath(image) for image in tests if isinstance(image, Path)),
        _root(data),
        config.get("seed", 0),
    )


def data_root(run: Path) -> Path | None:
    """Return the folder of a run's data set; ``None`` as in `SourceImages`.

    Raises:
        UserError: If the run's folder has no configuration.
    """
    return _root(read_config(run).data)


def find_training_images(
    run: Path, names: Sequence[str], found: SourceImages | None = None
) -> ImageDataset:
    """Return the training images of a run, in order, from the data set it was trained on.

    Args:
        run: The run's folder.
        names: Names of the images, as in its manifest. A missing image fails when it is read.
        found: The data set; default: searched, and empty if that fails.

    Raises:
        UserError: If the folder has no configuration, or one that calls unknown code.
    """
    data = read_config(run).data
    check_targets(plain(data.source), run / "config.yaml")
    if found is None:
        try:
            found = find_source_images(run)
        except UserError:
            found = SourceImages({}, frozenset(), None, 0)
    samples = [found.trained(name) for name in names]
    return ImageDataset(samples, build_preprocess(data), max_pixels=data.max_pixels)


def _root(data: DictConfig) -> Path | None:
    root, table = data.get("root"), data.get("file")
    return Path(root) if root else Path(table).parent if table else None


def _parts(name: str) -> tuple[str, str]:
    """Return the original's name and the number in the name of a repeat, such as ``a.png#2``."""
    original, _, number = name.rstrip("#").rpartition("#")
    return original, number
