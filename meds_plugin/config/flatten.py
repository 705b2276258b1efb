"""Nested configurations as one level of dotted keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["flatten"]


def flatten(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by their dotted keys.

    An empty dictionary is a leaf: the result tells it from a key that is not there.
    """
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        leaves |= flatten(value, f"{name}.") if value and isinstance(value, dict) else {name: value}
    return leaves
