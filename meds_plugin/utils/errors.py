"""The errors that mean: the user's input is wrong; and the one line they are printed as."""

from __future__ import annotations

import sys

__all__ = ["DetectorError", "UserError", "print_error"]


class UserError(ValueError):
    """Wrong input: the message is one line that says what, where, and what to do about it.

    The command line prints it without a traceback and ends with status 2.
    """


class DetectorError(UserError, TypeError):
    """A detector that breaks the protocol; the line names the method and what to change."""


def print_error(message: object, *, rank: int | None = None) -> None:
    """Print a message as one line on standard error.

    Args:
        message: Its line breaks become spaces.
        rank: The process of a distributed job that it is about.
    """
    where = "" if rank is None else f"rank {rank}: "
    print(f"meds_plugin: {where}{' '.join(str(message).split())}", file=sys.stderr)
