from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.data import DataSettings, prepare
from meds_plugin.data.readers.kolektor_sdd2 import read_kolektor_sdd2
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.readers.trees import draw, mark

if TYPE_CHECKING:
    from pathlib import Path

COPIES = ("train/10301 (copy).png", "train/10301_GT (copy).png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of six training and four test images, two each are defective."""
    root = tmp_path / "KolektorSDD2"
    for part, first, count in (("train", 10300, 6), ("test", 20000, 4)):
        for number in range(first, first + count):
            draw(root, f"{part}/{number}.png")
            mark(root, f"{part}/{number}_GT.png", *([(1, 2)] if number < first + 2 else []))
    draw(root, *COPIES)
    return root


def _failure(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_kolektor_sdd2(root, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defective_training_images_are_left_out(root: Path) -> None:
    split = read_kolektor_sdd2(root)
    assert split.categories == ["kolektor_sdd2"]
    assert [sample.path for sample in split.train] == [
        f"train/{n}.png" for n in range(10302, 10306)
    ]
    assert all(sample.injected is False for sample in split.train)
    assert [(sample.path, sample.defect, sample.mask) for sample in split.test] == [
        ("test/20000.png", "defect", root / "test/20000_GT.png"),
        ("test/20001.png", "defect", root / "test/20001_GT.png"),
        ("test/20002.png", None, None),
        ("test/20003.png", None, None),
    ]
    unread, left_out = split.notes
    assert unread == f"train: not read: {COPIES[0][6:]}, {COPIES[1][6:]}"
    assert left_out.startswith("2 of 6 images in train are defective and left out; data.train_def")


def test_defective_training_images_count_as_injected(root: Path) -> None:
    split = read_kolektor_sdd2(root, train_defective=True)
    assert [sample.injected for sample in split.train] == [True, True, *[False] * 4]
    note = "KolektorSDD2 lists 2 of 6 training images as defective: they count as injected"
    assert note in split.notes
    report = prepare(split, DataSettings(noise=0.75)).noise
    assert report.counts == {"kolektor_sdd2": 3}
    assert "data.train_defective must be" in _failure(root, train_defective="yes")


def test_masks_that_are_missing_or_damaged(root: Path) -> None:
    (root / "train/10302_GT.png").unlink()
    (root / "test/20002_GT.png").write_bytes(b"")
    split = read_kolektor_sdd2(root)
    assert (len(split.train), len(split.test)) == (3, 3)
    assert [problem.path for problem in split.problems] == ["train/10302.png", "test/20002.png"]
    assert "has no 10302_GT.*: add its mask" in split.problems[0].reason
    assert "is empty (zero bytes)" in split.problems[1].reason


def test_empty_folders(root: Path) -> None:
    for file in (root / "test").iterdir():
        file.unlink()
    assert "no test images: no test metrics" in read_kolektor_sdd2(root).notes
    for file in (root / "train").iterdir():
        file.unlink()
    message = _failure(root)
    assert message.startswith(f"data.root={root} is not laid out as kolektor_sdd2 (expected ")
    mark(root, "test/1_GT.png")
    draw(root, "test/1.png")
    assert "category kolektor_sdd2 has no training images, all 1 are test" in _failure(root)


def test_other_layouts_are_named(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "mvtec", "bolt/train/good/0.png", "bolt/test/hole/0.png")
    assert _failure(tmp_path / "mvtec").endswith(": it looks like mvtec; use data=mvtec")
    with pytest.raises(UserError, match=r"looks like kolektor_sdd2; use data=kolektor_sdd2$"):
        read_mvtec(root)
