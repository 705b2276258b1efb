"""Finds the images of a finished run again, where the run kept no thumbnails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from meds_plugin.config.build import plain
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample
from meds_plugin.data.transforms import Preprocess
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["dataset_of", "read_config"]


def read_config(run: Path) -> DictConfig:
    """Return a run's configuration.

    Raises:
        UserError: If the folder has none.
    """
    file = run / "config.yaml"
    try:
        config = OmegaConf.load(file)
    except Exception as error:  # YAML fails in its own ways
        msg = f"{file} cannot be read ({type(error).__name__}): give the folder of a run"
        raise UserError(msg) from error
    if not isinstance(config, DictConfig) or "data" not in config:
        msg = f"{file} is no configuration of a run: give the folder of one"
        raise UserError(msg)
    return config


def dataset_of(run: Path, names: Sequence[str]) -> ImageDataset:
    """Return the training images of a run, in order, from where they were read.

    Args:
        run: The run's folder.
        names: From its manifest. An image that is not there any more fails when it is read; one
            that a noise protocol repeated is shown as its file is.

    Raises:
        UserError: If the folder has no configuration.
    """
    data = read_config(run).data
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
        found = instantiate(data.source)()
    except (UserError, InstantiationException):
        return {}
    return {sample.path: sample for sample in [*found.test, *found.train]}
