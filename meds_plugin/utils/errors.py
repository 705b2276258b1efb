"""Errors in user input, and how they are printed as one line."""

from __future__ import annotations

import sys

__all__ = ["DetectorError", "UserError", "brief", "print_error", "require"]


class UserError(ValueError):
    """Wrong input: the message is one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class DetectorError(UserError, TypeError):
    """A detector breaks the protocol; the message names the method and what to change."""


def require(ok: bool, key: str, expected: str, value: object) -> None:
    """Raise UserError unless a setting's value is as expected."""
    if not ok:
        msg = f"{key} must be {expected}, got {value!r}"
        raise UserError(msg)


def brief(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def print_error(message: object, *, rank: int | None = None) -> None:
    """Print a message as one line on standard error.

    Args:
        message: The message; line breaks become spaces.
        rank: The rank of a distributed job that it concerns.
    """
    where = "" if rank is None else f"rank {rank}: "
    print(f"meds_plugin: {where}{' '.join(str(message).split())}", file=sys.stderr)
