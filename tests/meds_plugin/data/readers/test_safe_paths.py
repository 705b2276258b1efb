from __future__ import annotations

from pathlib import Path

import pytest

from meds_plugin.data.readers.safe_paths import is_plain_name, path_inside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", "a.png"),
        ("./a//b/../c.png", "a/c.png"),
        ('a b/it\'s "ü"\n.png', 'a b/it\'s "ü"\n.png'),
        (" a ", " a "),
        ("a\\b.png", "a\\b.png"),
        ("..a/...", "..a/..."),
        (".", "."),
        ("a/..", "."),
        ("/data/set/a.png", "a.png"),
        ("/data/set/../set/a.png", "a.png"),
        ("/data/set", "."),
        ("../set/a.png", "a.png"),
        ("", None),
        ("a\0b", None),
        ("..", None),
        ("../a.png", None),
        ("a/../../a.png", None),
        ("/data/set2/a.png", None),
        ("/data/set/../other/a.png", None),
        ("/etc/passwd", None),
        ("//data/set/a.png", None),
    ],
)
def test_places_by_their_text(text: str, expected: str | None) -> None:
    place = path_inside(Path("/data/set"), text)
    assert (None if place is None else str(place)) == expected


def test_a_relative_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(path_inside(Path("set"), str(tmp_path / "set" / "a.png"))) == "a.png"
    assert str(path_inside(Path("set/../"), "a.png")) == "a.png"
    assert path_inside(Path("set"), "../b.png") is None


def test_both_names_of_a_linked_root_count(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    link = tmp_path / "link"
    link.symlink_to(disk, target_is_directory=True)
    for name in (disk, link):
        assert str(path_inside(link, f"{name}/a.png")) == "a.png"
    assert path_inside(disk, f"{link}/a.png") is None


def test_a_link_does_not_change_what_dots_mean(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "far" / "away").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "far" / "away", target_is_directory=True)
    assert str(path_inside(root, "link/../a.png")) == "a.png"  # not far/a.png


def test_plain_names() -> None:
    assert is_plain_name("pcb 1")
    for name in ("", ".", "..", "a/b", "a\\b", "/", "a\0"):
        assert not is_plain_name(name)
