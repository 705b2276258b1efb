from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.listed_images import (
    EntryError,
    add_category,
    listed_file,
    mark_injected,
)
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from meds_plugin.data.readers.listed_images import Entry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inner = tmp_path / "root" / "in"
    inner.mkdir(parents=True)
    (inner / "a b'é.png").touch()
    (tmp_path / "out.png").touch()
    return tmp_path / "root"


def test_a_listed_file_is_found(root: Path) -> None:
    assert str(listed_file(root / "in", "a b'é.png")) == "a b'é.png"
    for name in ("./in//a b'é.png", "in\\a b'é.png", " in/a b'é.png ", str(root / "in/a b'é.png")):
        assert str(listed_file(root, name)) == "in/a b'é.png"


@pytest.mark.parametrize(
    "name", ["../out.png", "in/../../out.png", "..\\out.png", "/etc/passwd", "C:\\x.png", "C:x"]
)
def test_names_that_lead_out_are_refused(root: Path, name: str) -> None:
    with pytest.raises(EntryError, match=r"leads outside .*root; fix it or data.root, or remove"):
        listed_file(root, name)


def test_what_is_no_file_is_refused(root: Path) -> None:
    (root / "lost.png").symlink_to(root / "nowhere")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    names = ["none.png", "in/a b'é.png/x.png", "lost.png", "in", "pipe.png", "loop.png"]
    for name in [*names, f"{'x' * 300}.png", "two\nlines.png", "", " "]:
        with pytest.raises(EntryError) as caught:
            listed_file(root, name)
        message = str(caught.value)
        assert "is not a readable file in" in message, name
        assert len(message.splitlines()) == 1, name


def _sample(path: str, defect: str | None = None, *, mask: bool = False) -> Sample:
    return Sample(path, "a", defect, Path(path), Path(path) if mask else None)


def test_a_category_is_sorted_and_without_repeats() -> None:
    lost = Problem("lost", "gone")
    twice = _sample("a/2")
    split = Split([_sample("0/1")], [])
    train: list[Entry] = [("1", _sample("a/10")), ("2", twice), ("3", lost), ("4", _sample("a/2"))]
    first, last = _sample("z"), _sample("b", "x")
    named = [replace(s, extra={"converted": n}) for s, n in ((last, "7"), (first, "5"))]
    add_category(split, "a", "list.csv", train, [(".", sample) for sample in named])
    assert [sample.path for sample in split.train] == ["0/1", "a/2", "a/10"]
    assert split.train[1] is twice
    assert split.problems == [lost, Problem("a/2", "4: a/2 is listed a second time; remove one")]
    assert [sample.path for sample in split.test] == ["z", "b"]
    assert split.notes == ["category a: no masks: pixel metrics are skipped"]
    with pytest.raises(UserError, match=r"^category b: list.csv lists no training images; leave"):
        add_category(split, "b", "list.csv", [], [])


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
