"""Checks of the rivals' settings: one line that names the key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meds_plugin.utils.errors import require
from meds_plugin.utils.values import is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "require_numbers",
    "require_odd",
    "require_one_of",
    "require_shares",
    "require_whole",
]


def require_whole(section: str, least: int, values: Mapping[str, object]) -> None:
    """Refuse what is no whole number of at least ``least``."""
    for key, value in values.items():
        ok = is_whole(value) and value >= least
        require(ok, f"{section}.{key}", f"a whole number, {least} or more", value)


def require_shares(section: str, values: Mapping[str, object]) -> None:
    """Refuse what is no number in (0, 1]."""
    for key, value in values.items():
        require(is_number(value) and 0 < value <= 1, f"{section}.{key}", "a share in (0, 1]", value)


def require_numbers(section: str, values: Mapping[str, object]) -> None:
    """Refuse what is no finite number of at least 0."""
    for key, value in values.items():
        ok = is_number(value) and 0 <= value < math.inf
        require(ok, f"{section}.{key}", "a number, 0 or more", value)


def require_one_of(section: str, allowed: Sequence[str], values: Mapping[str, object]) -> None:
    """Refuse what is not among the names."""
    for key, value in values.items():
        require(value in allowed, f"{section}.{key}", " or ".join(allowed), value)


def require_odd(section: str, values: Mapping[str, object]) -> None:
    """Refuse what is no odd whole number of at least 1."""
    for key, value in values.items():
        ok = is_whole(value) and value >= 1 and value % 2 == 1
        require(ok, f"{section}.{key}", "an odd whole number, 1 or more", value)
