from __future__ import annotations

from meds_plugin.config.flatten import changes, flatten


def test_leaves_have_dotted_keys() -> None:
    node = {"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": None, 3: "g"}
    assert flatten(node) == {"a.b.c": 1, "a.d": [{"e": 2}], "f": None, "3": "g"}


def test_an_empty_dictionary_is_a_leaf() -> None:
    assert flatten({"a": {"b": {}}}) == {"a.b": {}}
    assert flatten({}) == {}


def test_changes_name_the_keys_with_both_values() -> None:
    before = {"steps": {"distill": 4, "finetune": 6}, "noise": 0, "old": 1, "layers": [1, 2]}
    now = {"steps": {"distill": 4, "finetune": 8}, "noise": 0.0, "new": {"a": None}, "layers": [1]}
    assert changes(flatten(before), flatten(before)) == []
    assert changes(flatten(before), flatten(now)) == [
        "layers: [1, 2], now [1]",
        "new.a: not there, now None",
        "old: 1, now not there",
        "steps.finetune: 6, now 8",
    ]
