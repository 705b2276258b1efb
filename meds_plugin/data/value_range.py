"""Which values of images with more than 8 bits are black and white: the same for a whole set."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meds_plugin.data.check import CheckReport
    from meds_plugin.data.images import ValueRange
    from meds_plugin.data.samples import Sample

__all__ = ["checked_range", "choose_range"]

_TOP = 0xFFFF
_DARK = 8  # at most one in so many values in use: nearly black
_BITS = (8, 10, 12, 14)  # that cameras have
_MAY_BE_DEEP = {".png", ".tif", ".tiff", ".pgm", ".pnm", ".jp2", ".j2k"}


def checked_range(value: object) -> ValueRange:
    """Return the range that the setting ``data.range`` names.

    Args:
        value: ``auto`` or ``full``, which name none, or the values of black and white.

    Raises:
        UserError: If it is none of these.
    """
    if value in ("auto", "full"):
        return None
    pair = list(value) if is_list(value) else []
    numbers = [each for each in pair if isinstance(each, (int, float)) and isfinite(each)]
    if len(numbers) != len(pair) or len(pair) != 2 or not pair[0] < pair[1]:
        msg = f"data.range must be auto, full or [LOW, HIGH] with LOW < HIGH, got {value!r}"
        raise UserError(msg)
    return pair[0], pair[1]


def choose_range(
    setting: object, samples: Iterable[Sample], report: CheckReport | None
) -> tuple[ValueRange, list[str]]:
    """Settle the range of pixel values of a data set.

    With ``auto``, that is the whole range of 16 bits, unless all images use less than an eighth of
    it: then the range of 8, 10, 12 or 14 bits that holds their largest value.

    Args:
        setting: See `checked_range`.
        samples: All images of the set, whatever will be trained on.
        report: Their check; ``None``: there is none, and the range is the whole one.

    Returns:
        The range, and notes for the user.

    Raises:
        UserError: If the setting is wrong.
    """
    fixed, auto = checked_range(setting), setting == "auto"
    if report is None:
        files = (s.image for s in samples if isinstance(s.image, Path))
        if auto and any(file.suffix.lower() in _MAY_BE_DEEP for file in files):
            note = "data.check=false: data.range=auto reads images of 16 bits as data.range=full"
            return None, [note]
        return fixed, []
    largest: dict[str, int] = {}
    first: dict[str, str] = {}
    for sample in samples:
        facts = report.facts_of(sample)
        if facts and facts.bits > 8:
            value = _TOP if facts.largest is None else facts.largest
            largest[sample.category] = max(value, largest.get(sample.category, 0))
            first.setdefault(sample.category, shown(sample.path))
    dark = [name for name, value in largest.items() if value * _DARK <= _TOP]
    if not dark or fixed is not None:
        return fixed, []
    found = f"use under an eighth of their 16 bits, first {first[dark[0]]}"
    if not auto:
        note = f"images {found}: they appear nearly black; data.range=auto brightens a whole set"
        return None, [note]
    if len(dark) < len(largest):
        names = ", ".join(shown(name) for name in dark)
        note = (
            f"images of {names} {found}, those of other categories more: they come in nearly "
            "black; data.range=[LOW,HIGH] changes all alike"
        )
        return None, [note]
    bits = next(bits for bits in _BITS if max(largest.values()) < 1 << bits)
    top = (1 << bits) - 1
    note = f"images {found}: read as {bits} bits (data.range=[0,{top}]); data.range=full: as 16"
    return (0, top), [note]
