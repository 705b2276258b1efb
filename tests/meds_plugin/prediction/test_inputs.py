"""What counts as an image to score: files, folders, patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from meds_plugin.prediction.inputs import find_images
from meds_plugin.utils.errors import UserError

NAMES = ["a.png", "b 2.jpg", "b 10.jpg", "in/[x] y=1.PNG", "in/deep/c.tif"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "shots"
    for name in [*NAMES, "notes.txt", ".hidden.png", "in/Thumbs.db"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_is_searched_in_any_nesting(root: Path) -> None:
    found = find_images(str(root))
    assert list(found.images) == NAMES
    assert all(file == root / name for name, file in found.images.items())
    assert (found.problems, found.passed_over) == ([], 2)


def test_a_file_is_taken_whatever_its_suffix(root: Path) -> None:
    assert list(find_images(str(root / "a.png")).images) == ["a.png"]
    assert list(find_images(str(root / "notes.txt")).images) == ["notes.txt"]
    assert list(find_images(str(root / "in" / "[x] y=1.PNG")).images) == ["[x] y=1.PNG"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["a.png"]),
        ("*", ["a.png", "b 2.jpg", "b 10.jpg"]),
        ("**/*.[pP][nN][gG]", ["a.png", "in/[x] y=1.PNG"]),
        ("*/*/*", ["in/deep/c.tif"]),
        ("b ?.jpg", ["b 2.jpg"]),
    ],
)
def test_patterns(root: Path, pattern: str, names: list[str]) -> None:
    found = find_images(f"{root}/{pattern}")
    assert list(found.images) == names
    assert found.root == root


def test_a_pattern_relative_to_where_one_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert list(find_images("*.png").images) == ["a.png"]
    assert list(find_images(".").images) == NAMES


def test_results_in_the_folder_are_not_scored_again(root: Path) -> None:
    out = root / "in" / "deep"
    assert list(find_images(str(root), without=out).images) == NAMES[:4]


def test_links_that_lead_out_are_problems_unless_allowed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "back.png").symlink_to("a.png")
    (root / "nowhere").symlink_to("/nowhere/else")
    for text in (str(root), f"{root}/*"):
        found = find_images(text)
        assert "back.png" in found.images
        assert "out.png" not in found.images
        reasons = {problem.path: problem.reason for problem in found.problems}
        assert "leads outside the folder of images=" in reasons["out.png"]
        assert reasons["out.png"].endswith("outside_links=true")
        assert "out.png" in find_images(text, outside_links=True).images
    assert (
        "which does not exist"
        in {p.path: p.reason for p in find_images(str(root)).problems}["nowhere"]
    )
    # A file that is named itself is meant.
    assert list(find_images(str(root / "out.png")).images) == ["out.png"]


def test_a_name_that_no_table_can_hold_is_a_problem(root: Path) -> None:
    try:
        (root / "latin_\udce9.png").touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (problem,) = find_images(str(root)).problems
    assert problem.path == "latin_\\udce9.png"
    assert "is not UTF-8" in problem.reason


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("none", "does not exist"),
        ("", "does not exist"),
        ("a\0b", "does not exist"),
        ("shots/in/*.jpg", "holds no image"),
        ("shots/*/../../*", "may not contain .."),
        ("empty", "holds no image .* but nothing"),
        ("texts", "holds no image .* but 1 other files"),
    ],
)
def test_nothing_to_score(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    monkeypatch.chdir(root.parent)
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").touch()
    with pytest.raises(UserError, match=line):
        find_images(text)
