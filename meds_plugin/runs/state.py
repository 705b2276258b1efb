"""What can be known of a run without loading what runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["anchor_paths", "is_finished"]


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
            node[key] = str(Path(str(value)).expanduser().absolute())


def is_finished(metrics: Path) -> bool:
    """Whether the results are of all steps; `trainer.max_steps` may have ended a run early."""
    if not metrics.is_file():
        return False
    protocol = json.loads(metrics.read_text())["protocol"]
    return bool(protocol["steps_done"] >= protocol["total_steps"])
