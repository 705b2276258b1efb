"""Compares the training images of a run with those that are there when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, str]

__all__ = ["manifest_changes"]


def manifest_changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Name each training image that was changed, taken away or added.

    Args:
        before: Rows of the run's ``manifest.csv``.
        now: Rows of the manifest as it would be written now. A row without a digest, of images that
            were not checked, has the content of the other.
    """
    old, new = ({row["path"]: row for row in rows} for rows in (before, now))
    found = [f"{path} is missing" for path in old if path not in new]
    found += [f"{path} is new" for path in new if path not in old]
    for path, row in old.items():
        other = new.get(path, row)
        for key in ("category", "injected"):
            if row[key] != other[key]:
                was, is_now = row[key] or "unknown", other[key] or "unknown"
                found.append(f"{path}: {key} was {was}, is {is_now}")
        if row["digest"] and other["digest"] and row["digest"] != other["digest"]:
            found.append(f"{path} has different content")
    if not found and list(old) != list(new):
        found.append("their order differs")
    return found
