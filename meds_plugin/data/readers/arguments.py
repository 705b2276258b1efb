"""The two arguments that every reader takes: the data set's folder and its categories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import is_folder, natural_key
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import expand_home

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["chosen_categories", "data_folder"]


def data_folder(root: str | os.PathLike[str] | None, expected: str) -> Path:
    """Return the data set's folder.

    Args:
        root: As the user gave it; a leading ``~`` is the home folder.
        expected: What the folder must hold, in a few words, for the message.

    Raises:
        UserError: If it is not given, does not exist, or is not a folder.
    """
    if root is None:
        msg = f"data.root=DIR is missing: name the folder that holds {expected}"
        raise UserError(msg)
    folder = Path(expand_home(root))
    if is_folder(folder):
        return folder
    what = "is a file, not a folder" if os.path.lexists(folder) else "does not exist"
    msg = f"data.root={folder} {what}; name the folder that holds {expected}"
    raise UserError(msg)


def chosen_categories(
    categories: Sequence[str] | str | None, found: Collection[str], source: str
) -> list[str]:
    """Return the categories to read, in natural order.

    Args:
        categories: Those that the user asked for; ``None``: all.
        found: Those that there are.
        source: Where those are from, as on the command line, for the message.

    Raises:
        UserError: If one does not exist, or the list is empty.
    """
    if categories is None:
        return sorted(found, key=natural_key)
    wanted = {str(n) for n in ([categories] if isinstance(categories, str) else categories)}
    unknown = sorted(wanted - set(found), key=natural_key)
    if unknown or not wanted:
        there = ", ".join(sorted(found, key=natural_key))
        what = f"not in {source}" if unknown else "no category is named"
        msg = f"data.categories=[{','.join(map(shown, unknown))}]: {what}; there are: {there}"
        raise UserError(msg)
    return sorted(wanted, key=natural_key)
