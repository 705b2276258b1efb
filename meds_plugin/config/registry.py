"""Detectors of other packages: found by their entry point, built by name.

A package offers a detector in its ``pyproject.toml``:

    [project.entry-points."meds_plugin.detectors"]
    my_detector = "my_package.detector:MyDetector"
"""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate

from meds_plugin.config.location import conf_dir
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omegaconf import DictConfig
    from torch import nn

__all__ = ["GENERIC", "build_from_entry_point", "register_detectors"]

GROUP = "meds_plugin.detectors"
GENERIC = "entry_point"  # conf/backbone/entry_point.yaml


def register_detectors(config_dirs: Iterable[str]) -> None:
    """Let ``backbone=NAME`` find the entry points.

    Args:
        config_dirs: Where configurations are; one of the same name goes before an entry point.
    """
    configs = {path.stem for folder in config_dirs for path in Path(folder).glob("backbone/*.yaml")}
    for name in sorted({point.name for point in entry_points(group=GROUP)} - configs):
        ConfigStore.instance().store(
            group="backbone",
            name=name,
            node={"defaults": [GENERIC, "_self_"], "name": name},
            provider=GROUP,
        )


def build_from_entry_point(
    name: str | None, *, encoder: DictConfig | dict[str, Any] | None = None, **arguments: Any
) -> nn.Module:
    """Build the detector that an entry point names.

    Args:
        name: Of the entry point, a class or another callable that returns a detector.
        encoder: Configuration of the encoder; built and passed on only if there is a parameter
            ``encoder``.
        **arguments: Passed on.

    Raises:
        UserError: If there is no such entry point, or what it names cannot be loaded or called or
            returns no `torch.nn.Module`.
    """
    from torch import nn  # late: the command line only wants the names

    point = _find(name)
    source = f"backbone={name} ({point.value})"
    try:
        factory = point.load()
        parameters = inspect.signature(factory).parameters
    except Exception as error:
        msg = f"{source} cannot be loaded: {_line(error)}"
        raise UserError(msg) from error
    unknown = sorted(arguments.keys() - parameters.keys())
    open_ended = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if unknown and not open_ended:
        known = ", ".join(parameters) or "nothing"
        msg = f"{source}: there is no backbone.detector.{unknown[0]}; it takes {known}"
        raise UserError(msg)
    if "encoder" in parameters and encoder is not None:
        arguments["encoder"] = instantiate(encoder)
    try:
        detector = factory(**arguments)
    except UserError:
        raise
    except Exception as error:
        msg = f"{source} failed when it was built: {_line(error)}"
        raise UserError(msg) from error
    if not isinstance(detector, nn.Module):
        msg = f"{source} must return a torch.nn.Module, got {type(detector).__name__}"
        raise UserError(msg)
    return detector


def _find(name: str | None) -> EntryPoint:
    points = list(entry_points(group=GROUP))
    found = {point.value: point for point in points if point.name == name}
    if len(found) > 1:
        packages = ", ".join(str(point.dist and point.dist.name) for point in found.values())
        msg = f"backbone={name} is offered by several packages ({packages}): remove all but one"
        raise UserError(msg)
    if not found:
        files = (Path(conf_dir()) / "backbone").glob("[!_]*.yaml")  # a file _base is no choice
        configs = {path.stem for path in files} - {GENERIC}
        names = ", ".join(sorted(configs | {point.name for point in points}))
        msg = f"backbone={name or GENERIC} does not exist: choose from {names}"
        raise UserError(msg)
    return next(iter(found.values()))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
