"""The user's paths in a run's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.utils.text import expand_home

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["anchor_paths"]


def anchor_paths(config: DictConfig) -> None:
    """Make the user's paths absolute: a run may be resumed from another working directory."""
    for node, key in (
        (config.data, "root"),
        (config.data, "file"),
        (config.data, "exclude"),
        (config, "noise_file"),
        (config.encoder, "weights"),
        (config.cache, "dir"),
    ):
        value = node.get(key)
        if value is not None and value != "random":
            # A name such as 2024 comes as a number.
            node[key] = str(Path(expand_home(str(value))).absolute())
