"""Finds the training images of a finished run that stored no thumbnails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.config.build import build, build_preprocess, check_targets, plain
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample
from meds_plugin.runs.read import read_config
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

__all__ = ["find_training_images"]

_MISSING = Sample("", "", None, Path(os.devnull, "missing"))  # cannot be read


def find_training_images(run: Path, names: Sequence[str]) -> ImageDataset:
    """Return the training images of a run, in order, from the data set it was trained on.

    Args:
        run: The run's folder.
        names: Names of the images, as in its manifest. A missing image fails when it is read; a
            copy that a noise protocol made (``NAME#2``) is shown as its original.

    Raises:
        UserError: If the folder has no configuration, or one that calls unknown code.
    """
    data = read_config(run).data
    check_targets(plain(data.source), run / "config.yaml")
    found = _samples_by_name(data)
    samples = []
    for name in names:
        original = name.rstrip("#").rpartition("#")[0]
        samples.append(replace(found.get(name) or found.get(original) or _MISSING, path=name))
    return ImageDataset(samples, build_preprocess(data), max_pixels=data.max_pixels)


def _samples_by_name(data: DictConfig) -> dict[str, Sample]:
    """Return the images that the data source still finds; none if it fails."""
    try:
        split = build(data.source)()
    except UserError:
        return {}
    return {sample.path: sample for sample in [*split.test, *split.train]}
