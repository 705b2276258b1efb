"""Builds what a run's configuration describes; only what is known, where the file is a stranger's.

A configuration names what is called by ``_target_``, so that one from somewhere else could call
anything.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from meds_plugin.config.location import conf_dir
from meds_plugin.config.mistakes import check_names
from meds_plugin.config.registry import GROUP
from meds_plugin.data import AnomalyDataModule, DataSettings
from meds_plugin.data.transforms import Preprocess
from meds_plugin.data.value_range import checked_range
from meds_plugin.tiles import Tiling
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omegaconf import DictConfig
    from torch import nn

__all__ = [
    "build",
    "build_datamodule",
    "build_detector",
    "build_preprocess",
    "build_settings",
    "build_tiling",
    "check_targets",
    "plain",
    "settle_sizes",
]

T = TypeVar("T")

# Sides of evaluated maps in pixels.
_WHOLE = 256  # of the reference
_TILED = 1024


def build(node: DictConfig) -> Any:
    """Instantiate a node; wrong input inside it stays a `UserError`, however deep it is.

    Raises:
        UserError: That one, or what names the node whose arguments are of a wrong kind.
    """
    try:
        return instantiate(node)
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, (TypeError, ValueError)):
            key, target = node._get_full_key(None), node.get("_target_")
            msg = f"{key} ({target}) cannot be built: {type(cause).__name__}: {cause}"
            raise UserError(msg) from error
        raise


def build_settings(kind: type[T], node: DictConfig) -> T:
    """Make a dataclass of settings from its part of the configuration.

    Raises:
        UserError: If the part has a key that the dataclass does not, or a value is wrong.
    """
    given = plain(node)
    check_names(given, inspect.signature(kind).parameters, node._get_full_key(None))
    return kind(**given)


def build_detector(config: DictConfig) -> nn.Module:
    """Build the detector of a run's configuration, with the weights it begins with.

    Args:
        config: The whole configuration; ``encoder.image_size`` must be set.

    Raises:
        UserError: If it cannot be made.
    """
    with torch_seeded(config.seed, "detector"):
        return cast("nn.Module", build(config.backbone.detector))


def build_datamodule(config: DictConfig) -> AnomalyDataModule:
    """Build the data module of a run's configuration; no image is read yet.

    Raises:
        UserError: If a setting is wrong.
    """
    data = config.data
    return AnomalyDataModule(
        source=build(data.source),
        settings=DataSettings(
            noise=config.noise,
            noise_protocol=config.noise_protocol,
            noise_definition=config.noise_definition,
            noise_file=config.noise_file,
            exclude=data.exclude,
            on_error=data.on_error,
            max_pixels=data.max_pixels,
            outside_links=data.outside_links,
            check=data.check,
            value_range=plain(data.range),
            mask_values=data.mask_values,
        ),
        seed=config.seed,
        image_size=plain(data.image_size),
        crop=plain(data.crop),
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        validate=config.validate_every is not None,
        tiling=build_tiling(data),
        tile_unit=data.tile_unit,
        # Memories of single patches know no images.
        group_duplicates=config.memory.group_duplicates and config.memory.unit == "image",
    )


def settle_sizes(config: DictConfig) -> None:
    """Set the sizes that depend on whether images are cut into tiles."""
    tiles, data = config.data.tiles is not None, config.data
    if config.evaluation.resize is None:
        config.evaluation.resize = _TILED if tiles else _WHOLE
    if tiles and data.crop is not None:
        # A tile is seen whole, at the size the detector is made for.
        data.image_size, data.crop = data.crop, None


def build_tiling(data: DictConfig) -> Tiling | None:
    """Return how a run cuts its images into tiles, if it does.

    Args:
        data: The configuration's section ``data``.

    Raises:
        UserError: If a setting is wrong.
    """
    if data.tiles is None:
        if data.overlap is not None:
            msg = f"data.overlap={plain(data.overlap)} needs data.tiles: give the size of the tiles"
            raise UserError(msg)
        return None
    return Tiling.of(plain(data.tiles), plain(data.overlap))


def build_preprocess(data: DictConfig) -> Preprocess:
    """Return how a finished run prepared its images, up to the detector's normalisation.

    Args:
        data: The configuration's section ``data``; ``range`` must be settled.

    Raises:
        UserError: If a setting is wrong.
    """
    return Preprocess(
        plain(data.image_size),
        plain(data.crop),
        value_range=checked_range(plain(data.range)),
    )


def check_targets(node: Any, source: object) -> None:
    """Refuse a configuration that calls something else than known data sets and detectors.

    Known is what the shipped configurations of data sets, detectors and encoders call, and what
    installed packages offer as detectors (see `registry`).

    Args:
        node: Plain dictionaries and lists, already resolved.
        source: Where they come from, for the message.

    Raises:
        UserError: Naming the first unknown one.
    """
    offered = {point.value.replace(":", ".") for point in entry_points(group=GROUP)}
    for target in _targets(node):
        if target not in _shipped() | offered:
            msg = (
                f"{source} calls {target}, which is not a data set, detector or encoder of "
                "this package or an installed plugin: give trust=true if you trust the file"
            )
            raise UserError(msg)


def plain(node: Any) -> Any:
    """Return a configuration as dictionaries and lists, resolved; anything else as it is."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


@cache
def _shipped() -> frozenset[str]:
    groups = ("backbone", "data", "encoder")
    files = [path for group in groups for path in Path(conf_dir(), group).glob("*.yaml")]
    # Unresolved: what they refer to is elsewhere.
    return frozenset(
        target
        for path in files
        for target in _targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
    )


def _targets(node: Any) -> Iterator[str]:
    """Yield every ``_target_`` in a tree."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
