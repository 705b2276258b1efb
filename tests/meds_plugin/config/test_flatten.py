from __future__ import annotations

from meds_plugin.config.flatten import flatten


def test_leaves_have_dotted_keys() -> None:
    node = {"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": None, 3: "g"}
    assert flatten(node) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": None, "3": "g"}


def test_an_empty_dictionary_is_a_leaf() -> None:
    assert flatten({"a": {"b": {}}}) == {"a.b": {}}
    assert flatten({}) == {}
