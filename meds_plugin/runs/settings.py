"""Which settings of a run determine its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from meds_plugin.config.flatten import changes, flatten

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["edits", "result_settings", "under"]

# Keys that affect where a run is or how long it takes, but not its results.
_IRRELEVANT = (
    "cache.dir",
    "cache.disk_gb",
    "cache.gb",
    "checkpoint_every",
    "compile",
    "data.check",
    "data.num_workers",
    "data.source.progress",
    "false_alarm_rate",
    "figures",
    "logger",
    "resume",
    "review",
    "scoring_batch",
    "trainer",
    "validate_every",
)


def result_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that determine a run's results, by dotted keys.

    Args:
        config: The run's whole configuration, resolved.
    """
    return {key: value for key, value in flatten(config).items() if not under(key, *_IRRELEVANT)}


def edits(begun: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return in which settings that determine the results a configuration was edited.

    Absolute paths may change: data may have moved. Its content is compared by other means.

    Args:
        begun: The configuration that the run was trained with.
        config: The run's configuration now.
    """
    before, now = result_settings(begun), result_settings(config)
    moved = {key for key in before if _is_path(before[key]) and _is_path(now.get(key))}
    return changes(*({k: v for k, v in each.items() if k not in moved} for each in (before, now)))


def under(key: str, *sections: str) -> bool:
    """Whether a dotted key is one of some keys, or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in sections)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()
