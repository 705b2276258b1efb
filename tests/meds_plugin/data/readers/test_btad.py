from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.btad import read_btad
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.data.readers.visa import read_visa
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.readers.trees import draw, mark

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "BTech_Dataset_transformed"
    for name, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        draw(root / name, *(f"train/ok/{n:04}.{image}" for n in range(3)), f"test/ok/0000.{image}")
        draw(root / name, *(f"test/ko/{n:04}.{image}" for n in range(2)))
        for n in range(2):
            mark(root / name, f"ground_truth/ko/{n:04}.{mask}", (n, n))
    mark(root / "03", "ground_truth/ok/0000.bmp")
    return root


def _failure(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_btad(root)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_images_and_masks(root: Path) -> None:
    split = read_btad(root)
    assert split.categories == ["01", "02", "03"]
    assert len(split.train) == 9
    kinds = Counter((sample.category, sample.defect) for sample in split.test)
    assert kinds == {
        (name, kind): n for name in split.categories for kind, n in ((None, 1), ("ko", 2))
    }
    masks = {sample.path: sample.mask for sample in split.test}
    assert masks["01/test/ko/0001.bmp"] == root / "01/ground_truth/ko/0001.png"
    assert masks["03/test/ko/0001.bmp"] == root / "03/ground_truth/ko/0001.bmp"
    assert masks["03/test/ok/0000.bmp"] is None
    assert split.notes == []
    assert read_btad(root / "02").train[0].path == "train/ok/0000.png"
    assert read_btad(root, "02").categories == ["02"]


def test_missing_masks(root: Path) -> None:
    (root / "01/ground_truth/ko/0001.png").unlink()
    assert "lacks the masks of 1 of 2 images, first 0001_mask.png" in _failure(root)


def test_empty_folders(root: Path) -> None:
    for file in (root / "01" / "train" / "ok").iterdir():
        file.unlink()
    assert f"{root / '01' / 'train' / 'ok'} has no training images" in _failure(root)


def test_other_layouts_are_named(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "mvtec", "bolt/train/good/0.png", "bolt/test/hole/0.png")
    assert _failure(tmp_path / "mvtec").endswith(": it looks like mvtec; use data=mvtec")
    with pytest.raises(UserError, match=r"looks like btad; use data=btad$"):
        read_visa(root)
    assert len(read_mvtec(root).train) == 9  # the same tree with other words
