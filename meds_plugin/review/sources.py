"""Finds the images of a finished run again, where the run kept no thumbnails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.config.build import build, check_targets, plain
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample
from meds_plugin.data.transforms import Preprocess
from meds_plugin.runs.read import read_config
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

__all__ = ["dataset_of"]


def dataset_of(run: Path, names: Sequence[str]) -> ImageDataset:
    """Return the training images of a run, in order, from where they were read.

    Args:
        run: The run's folder.
        names: From its manifest. An image that is not there any more fails when it is read; one
            that a noise protocol repeated is shown as its file is.

    Raises:
        UserError: If the folder has no configuration, or one that calls unknown code.
    """
    data = read_config(run).data
    check_targets(plain(data.source), run / "config.yaml")
    found = _samples(data)
    samples = []
    for name in names:
        sample = found.get(name) or found.get(name.rstrip("#").rpartition("#")[0])
        gone = Sample(name, "", None, Path(os.devnull, "gone"))
        samples.append(replace(sample, path=name) if sample else gone)
    preprocess = Preprocess(plain(data.image_size), plain(data.crop))
    return ImageDataset(samples, preprocess, max_pixels=data.max_pixels)


def _samples(data: DictConfig) -> dict[str, Sample]:
    """Return all images that the source still finds by name; none where it finds nothing."""
    try:
        found = build(data.source)()
    except UserError:
        return {}
    return {sample.path: sample for sample in [*found.test, *found.train]}
