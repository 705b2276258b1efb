"""Nested configurations as one level of dotted keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["changes", "flatten"]


def flatten(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by their dotted keys.

    An empty dictionary is a leaf: the result tells it from a key that is not there.
    """
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        leaves |= flatten(value, f"{name}.") if value and isinstance(value, dict) else {name: value}
    return leaves


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ, such as ``steps.finetune: 14, now 20``.

    Args:
        before: Values by dotted keys.
        now: Likewise.
    """
    return [
        f"{key}: {before.get(key, 'not there')}, now {now.get(key, 'not there')}"
        for key in sorted(before.keys() | now.keys())
        if key not in before or key not in now or before[key] != now[key]
    ]
