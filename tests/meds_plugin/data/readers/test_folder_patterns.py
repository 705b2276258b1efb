from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.folder_patterns import Pattern, read_patterns
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def _pattern(text: str) -> Pattern:
    return Pattern(f"data.test={text}", tuple(text.split("/")))


@pytest.mark.parametrize(
    ("pattern", "name", "base"),
    [
        ("test", "test/good/1.png", "test"),
        ("test", "tests/good/1.png", None),
        ("test", "a/test/1.png", None),
        ("*/test", "a/test/good/1.png", "a/test"),
        ("*/test/*", "a/test/good/1.png", "a/test"),
        ("*/test/*", "a/test/1.png", "a/test"),
        ("*/test/*/*.png", "a/test/good/1.png", "a/test"),
        ("*/test/*/*.png", "a/test/good/1.jpg", None),
        ("**/test", "a/b/test/good/1.png", "a/b/test"),
        ("**/test", "test/good/1.png", "test"),
        ("**/test/**", "a/test/x/y/1.png", "a/test"),
        ("test/**/*.png", "test/a/b/1.png", "test"),
        ("lots/test*", "lots/test7/1.png", "lots/test7"),
        ("ng?", "ng1/1.png", "ng1"),
        ("ng[12]", "ng3/1.png", None),
        ("**/*_ng.png", "a/b/1_ng.png", "a/b"),
        ("*_ng.png", "1_ng.png", "."),
        ("*", "a/b/1.png", "a"),
        ("a/1.png", "a/1.png", "a"),
        ("A", "a/1.png", None),
    ],
)
def test_what_is_meant_and_its_base(pattern: str, name: str, base: str | None) -> None:
    found = _pattern(pattern).base(tuple(name.split("/")))
    assert (None if found is None else "/".join(found) or ".") == base


def test_what_exists_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "[ok]*").mkdir()
    (pattern,) = read_patterns("data.test", "[ok]*", tmp_path)
    assert pattern.literal
    assert pattern.base(("[ok]*", "1.png")) == ("[ok]*",)
    assert pattern.base(("okay", "1.png")) is None


def test_one_several_none_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "2024").mkdir()
    number: object = 2024  # what the command line makes of data.test=2024
    (pattern,) = read_patterns("data.test", number, tmp_path)  # type: ignore[arg-type]
    assert pattern.parts == ("2024",)
    several = read_patterns("data.test", [tmp_path / "2024", "*_t"], tmp_path)
    assert [(each.parts, each.literal) for each in several] == [
        (("2024",), True),
        (("*_t",), False),
    ]
    assert read_patterns("data.test", None, tmp_path) == []
    assert read_patterns("data.test", [], tmp_path) == []


def test_folders_outside_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("root", "held out"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (tmp_path / "held out", "../held out/", "~/held out"):
        (pattern,) = read_patterns("data.test", text, tmp_path / "root")
        assert pattern.outside == tmp_path / "held out"
        assert pattern.base(("..", "held out", "good", "1.png")) == ("..", "held out")


@pytest.mark.parametrize("text", ["tset", "../*", "/nowhere/*", "", "a\nb", "\0", "~nobody7/x"])
def test_what_is_not_there(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        read_patterns("data.test", text, tmp_path)
    message = str(caught.value)
    assert message.startswith("data.test=")
    assert f"no such folder; name one relative to data.root={tmp_path}" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["..", "/"])
def test_folders_above_the_root(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"data\.test=.* holds data\.root="):
        read_patterns("data.test", text, tmp_path)
