from __future__ import annotations

from pathlib import Path

import pytest

from meds_plugin.utils.text import counted, expand_home, first_few, unquoted


def test_the_home_folder_replaces_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expand_home("~/set/") == "/home/somebody/set/"
    assert expand_home(Path("~")) == "/home/somebody"


@pytest.mark.parametrize("path", ["", "set/~", "~no-such-user/set", "./~"])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert expand_home(path) == path


def test_a_noun_agrees_with_its_number() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


def test_words_beyond_the_first_few_become_dots() -> None:
    assert first_few([]) == ""
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d"]) == "a, b, c, ..."
    assert first_few(["a", "b"], 1) == "a, ..."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a b'", "a b"),
        ('"a"', "a"),
        ("''", ""),
        ("'", "'"),
        ("", ""),
        ("'a\"", "'a\""),
        ("''a''", "'a'"),
        (r"'it\'s'", r"it\'s"),
    ],
)
def test_one_pair_of_quotes_is_removed(text: str, expected: str) -> None:
    assert unquoted(text) == expected
