"""Checks of a detector's arguments, named as on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_choice", "check_counts", "check_rates"]


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is none of at least two words.

    Raises:
        UserError: Naming the argument and the words.
    """
    if value not in choices:
        *others, last = choices
        words = f"{', '.join(others)} or {last}"
        msg = f"backbone.detector.{name} must be {words}, got {value!r}"
        raise UserError(msg)


def check_counts(**values: object) -> None:
    """Refuse values that are not whole numbers of at least 1.

    Raises:
        UserError: Naming the first such value.
    """
    for name, value in values.items():
        if type(value) is not int or value < 1:
            msg = f"backbone.detector.{name} must be a whole number of at least 1, got {value!r}"
            raise UserError(msg)


def check_rates(**values: object) -> None:
    """Refuse values that are not numbers in [0, 1).

    Raises:
        UserError: Naming the first such value.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            msg = f"backbone.detector.{name} must be at least 0 and below 1, got {value!r}"
            raise UserError(msg)
