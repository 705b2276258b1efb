"""Builds the loggers of a run's configuration."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from meds_plugin.config.build import build, plain
from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch.loggers import Logger
    from omegaconf import DictConfig

__all__ = ["build_loggers"]


def build_loggers(node: DictConfig | None, folder: Path, *, sweep: Path | None) -> list[Logger]:
    """Build loggers, with the run's place in their arguments.

    Args:
        node: The configuration's section ``logger``: arguments by the logger's name. In texts,
            ``{folder}`` is the run's folder, ``{name}`` its name, ``{sweep}`` the name of its sweep
            and ``{root}`` the folder of its sweep; outside a sweep ``{root}`` is the run's folder
            and an argument that is only ``{sweep}`` is left out. One that is only ``{new}`` becomes
            a random name, in the configuration, too: a resumed run finds it there.
        folder: The run's folder.
        sweep: The folder of its sweep, if it belongs to one.

    Raises:
        UserError: If a logger's package is not installed, or it refuses its arguments.
    """
    places = {"folder": str(folder), "name": folder.name, "root": str(sweep or folder)}
    places["sweep"] = sweep.name if sweep else ""
    found = []
    for name, given in (plain(node) or {}).items():
        if given is None:
            continue
        for key, value in given.items():
            if node is not None and value == "{new}":
                node[name][key] = given[key] = uuid.uuid4().hex
        filled = {key: _filled(value, places) for key, value in given.items()}
        kept = {key: value for key, value in filled.items() if value is not None}
        try:
            found.append(
                cast("Logger", build(OmegaConf.create({"logger": {name: kept}}).logger[name]))
            )
        except InstantiationException as error:
            cause = error.__cause__  # services refuse in many ways
            cause = cause if isinstance(cause, Exception) else error
            hint = ': pip install "meds-plugin[loggers]"' if isinstance(cause, ImportError) else ""
            msg = f"logger={name}{hint} ({brief(cause)})"
            raise UserError(msg) from error
    return found


def _filled(value: Any, places: dict[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    if value == "{sweep}" and not places["sweep"]:
        return None
    for key, place in places.items():
        value = value.replace(f"{{{key}}}", place)
    return value
