"""Kinds of values in configurations and arguments; booleans do not count as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

__all__ = ["is_list", "is_number", "is_whole"]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number, perhaps infinite or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an ``int``."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list, a tuple or OmegaConf's kind of list."""
    return isinstance(value, Sequence) and not isinstance(value, str)
