"""The errors that mean: the user's input is wrong."""

from __future__ import annotations

__all__ = ["DetectorError", "UserError"]


class UserError(ValueError):
    """Wrong input: the message is one line that says what, where, and what to do about it.

    The command line prints it without a traceback and ends with status 2.
    """


class DetectorError(UserError, TypeError):
    """A detector that breaks the protocol; the line names the method and what to change."""
