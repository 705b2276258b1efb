from __future__ import annotations

import os
from pathlib import Path

import pytest

from meds_plugin.data.readers.listed_images import (
    EntryError,
    listed_file,
    mark_injected,
    usable_samples,
)
from meds_plugin.data.samples import Problem, Sample, Split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inner = tmp_path / "root" / "in"
    inner.mkdir(parents=True)
    (inner / "a b'é.png").touch()
    (tmp_path / "out.png").touch()
    return tmp_path / "root"


def test_a_listed_file_is_found(root: Path) -> None:
    expected = "in/a b'é.png", root / "in" / "a b'é.png"
    assert listed_file(root, root / "in", "a b'é.png") == expected
    assert listed_file(root, root, "./in//a b'é.png") == expected


@pytest.mark.parametrize(
    "name", ["../out.png", "in/../../out.png", "..\\out.png", "/etc/passwd", "C:\\x.png", "C:x", ""]
)
def test_names_that_lead_out_are_refused(root: Path, name: str) -> None:
    with pytest.raises(EntryError, match=r"is not a path below .*root$"):
        listed_file(root, root, name)


def test_an_absolute_name_is_refused_even_inside(root: Path) -> None:
    with pytest.raises(EntryError, match="is not a path below"):
        listed_file(root, root, str(root / "in" / "a b'é.png"))


def test_what_is_no_file_is_refused(root: Path) -> None:
    (root / "lost.png").symlink_to(root / "nowhere")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    for name, why in {
        "none.png": "does not exist",
        "in/a b'é.png/x.png": "does not exist",
        "lost.png": "does not exist",
        "in": "is not a file",
        "pipe.png": "is not a file",
        "loop.png": "cannot be read (",
        f"{'x' * 300}.png": "cannot be read (",
        "zero\0.png": "is not the name of a file",
        "two\nlines.png": "does not exist",
    }.items():
        with pytest.raises(EntryError) as caught:
            listed_file(root, root, name)
        message = str(caught.value)
        assert why in message, name
        assert len(message.splitlines()) == 1, name


def _sample(path: str, defect: str | None = None, *, mask: bool = False) -> Sample:
    return Sample(path, "a", defect, Path(path), Path(path) if mask else None)


def test_usable_samples_are_sorted_and_unique() -> None:
    lost = Problem("lost", "gone")
    twice = _sample("a/2")
    problems: list[Problem] = []
    results: list[tuple[str, Sample | Problem]] = [
        ("1", _sample("a/10")),
        ("2", twice),
        ("3", lost),
        ("4", _sample("a/2")),
    ]
    found = usable_samples(results, problems, by=lambda sample: sample.path)
    assert [sample.path for sample in found] == ["a/2", "a/10"]
    assert found[0] is twice
    assert problems == [lost, Problem("a/2", "4: a/2 is listed a second time; take one out")]


def test_training_images_are_marked_where_a_list_knows_them() -> None:
    clean = Split([_sample("0")], [])
    mark_injected(clean, "list")
    assert [sample.injected for sample in clean.train] == [None]
    mark_injected(clean, "list", always=True)
    assert [sample.injected for sample in clean.train] == [False]
    assert clean.notes == []
    noisy = Split([_sample("0"), _sample("1", "x")], [_sample("2", "x")])
    mark_injected(noisy, "list")
    assert [sample.injected for sample in [*noisy.train, *noisy.test]] == [
        False,
        True,
        None,
    ]
    assert noisy.notes == ["list lists 1 of 2 training images as defective: they count as injected"]
