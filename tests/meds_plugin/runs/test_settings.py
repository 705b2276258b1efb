from __future__ import annotations

from typing import Any

import pytest

from meds_plugin.runs.settings import edits, result_settings, under

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trainer": {"devices": 1},
    "cache": {"gb": 4.0, "dtype": "float32"},
    "data": {"root": "/photos/old", "batch_size": 16, "check": True},
    "review": True,
}


def test_what_only_costs_time_determines_no_results() -> None:
    found = result_settings(CONFIG)
    assert found == {
        "seed": 0,
        "cache.dtype": "float32",
        "data.root": "/photos/old",
        "data.batch_size": 16,
    }


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"seed": 1}, ["seed: 0, now 1"]),
        ({"trainer": {"devices": 2}, "review": False}, []),
        ({"data": {**CONFIG["data"], "root": "/photos/new"}}, []),
        ({"data": {**CONFIG["data"], "root": "new"}}, ["data.root: /photos/old, now new"]),
        ({"data": {**CONFIG["data"], "extra": 1}}, ["data.extra: not there, now 1"]),
    ],
)
def test_edits_are_named_unless_they_change_no_result(
    changed: dict[str, Any], found: list[str]
) -> None:
    assert edits(CONFIG, {**CONFIG, **changed}) == found


def test_a_key_is_under_its_sections() -> None:
    assert under("data.root", "data")
    assert under("data", "data")
    assert not under("data_root", "data")
