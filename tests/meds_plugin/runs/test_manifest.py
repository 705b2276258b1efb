from __future__ import annotations

import pytest

from meds_plugin.runs.manifest import manifest_changes


def rows(*lines: str) -> list[dict[str, str]]:
    """Make rows of ``path category injected digest``; a dash is an empty field."""
    names = ("path", "category", "injected", "digest")
    return [
        dict(zip(names, (word.strip("-") for word in line.split()), strict=True)) for line in lines
    ]


UNKNOWN = "c: injected was unknown, is 0"
BEFORE = ("a nut 0 1f", "b nut 1 2f", "c bolt - -")


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (BEFORE, []),
        (("a nut 0 -", "b nut 1 -", "c bolt - 3f"), []),  # one of them without data.check
        (("a nut 0 1f", "b nut 1 3f", "c bolt - -"), ["b has different content"]),
        (("b nut 1 2f", "c bolt - -", "d nut 0 1f"), ["a is missing", "d is new"]),
        (("a nut 1 1f", "b nut 1 2f", "c bolt - -"), ["a: injected was 0, is 1"]),
        (("a nut 0 1f", "b nut - 2f", "c bolt 0 -"), ["b: injected was 1, is unknown", UNKNOWN]),
        (("a bolt 0 1f", "b nut 1 2f", "c bolt - -"), ["a: category was nut, is bolt"]),
        (("b nut 1 2f", "a nut 0 1f", "c bolt - -"), ["their order differs"]),
    ],
)
def test_names_what_changed(now: tuple[str, ...], found: list[str]) -> None:
    assert manifest_changes(rows(*BEFORE), rows(*now)) == found
