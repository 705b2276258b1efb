from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch

from meds_plugin.data import AnomalyDataModule
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.data.readers.mvtec_loco import read_mvtec_loco
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.readers.trees import SIZE, draw, mark

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "loco"
    for name in ("juice_bottle", "pushpins"):
        draw(
            root / name,
            *(f"train/good/{n:03}.png" for n in range(4)),
            *(f"validation/good/{n:03}.png" for n in range(2)),
            *(
                f"test/{kind}_anomalies/{n:03}.png"
                for kind in ("logical", "structural")
                for n in (0, 1)
            ),
            "test/good/000.png",
        )
        truth = root / name / "ground_truth"
        mark(truth, "logical_anomalies/000/000.png", (0, 0), value=251)
        mark(truth, "logical_anomalies/000/001.png", (5, 3), value=7)
        mark(truth, "logical_anomalies/001/000.png", (1, 1))
        mark(truth, "structural_anomalies/000/000.png", (2, 2))
        mark(truth, "structural_anomalies/001/000.png", (3, 3))
        (root / name / "defects_config.json").write_text("[]")
    return root


def _failure(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_mvtec_loco(root, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_images_of_every_part(root: Path) -> None:
    split = read_mvtec_loco(root)
    assert split.categories == ["juice_bottle", "pushpins"]
    assert [sample.path for sample in split.train[:6]] == [
        *(f"juice_bottle/train/good/{n:03}.png" for n in range(4)),
        *(f"juice_bottle/validation/good/{n:03}.png" for n in range(2)),
    ]
    kinds = Counter(sample.defect for sample in split.test)
    assert kinds == {None: 2, "logical_anomalies": 4, "structural_anomalies": 4}
    assert {sample.label for sample in split.train} == {"good"}
    assert split.notes == []


def test_validation_images_can_stay_out(root: Path) -> None:
    split = read_mvtec_loco(root / "pushpins", validation=False)
    assert [sample.path for sample in split.train] == [f"train/good/{n:03}.png" for n in range(4)]
    assert split.notes == ["category pushpins: not read: validation"]
    shutil.rmtree(root / "pushpins" / "validation")
    assert len(read_mvtec_loco(root, ["pushpins"]).train) == 4
    assert "data.validation must be true or false, got 1" in _failure(root, validation=1)


def test_a_mask_is_the_union_of_its_files(root: Path) -> None:
    source = read_mvtec_loco(root, "pushpins")
    truth = root / "pushpins" / "ground_truth" / "logical_anomalies"
    found = {sample.path: sample.mask for sample in source.test}
    assert found["pushpins/test/logical_anomalies/000.png"] == (
        truth / "000" / "000.png",
        truth / "000" / "001.png",
    )
    assert found["pushpins/test/logical_anomalies/001.png"] == (truth / "001" / "000.png",)
    assert found["pushpins/test/good/000.png"] is None
    data = AnomalyDataModule(source=source, image_size=(SIZE[1], SIZE[0]))
    names = [sample.path for sample in data.test.samples]
    mask = data.test.mask(names.index("pushpins/test/logical_anomalies/000.png"))
    assert mask is not None
    assert torch.nonzero(mask).tolist() == [[0, 0], [3, 5]]
    assert "masks" in data.summary


def test_without_ground_truth_there_are_no_masks(root: Path) -> None:
    shutil.rmtree(root / "pushpins" / "ground_truth")
    split = read_mvtec_loco(root, "pushpins")
    assert [sample.mask for sample in split.test] == [None] * 5
    assert split.notes == ["category pushpins: no ground_truth: pixel metrics are skipped"]


@pytest.mark.parametrize("remove", ["file", "folder"])
def test_missing_masks(root: Path, remove: str) -> None:
    place = root / "pushpins" / "ground_truth" / "structural_anomalies" / "001"
    (place / "000.png").unlink()
    if remove == "folder":
        place.rmdir()
    message = _failure(root)
    assert message.startswith(f"{place.parent} lacks the masks of 1 of 2 images, first 001/*.png; ")


def test_empty_folders(root: Path) -> None:
    for part in ("train", "validation"):
        shutil.rmtree(root / "pushpins" / part / "good")
        (root / "pushpins" / part / "good").mkdir()
    assert "category pushpins: " in (message := _failure(root))
    assert f"{root / 'pushpins' / 'train' / 'good'} has no training images" in message


def test_other_layouts_are_named(root: Path, tmp_path: Path) -> None:
    draw(tmp_path / "mvtec", "bolt/train/good/0.png", "bolt/test/hole/0.png")
    assert _failure(tmp_path / "mvtec").endswith(": it looks like mvtec; use data=mvtec")
    assert _failure(root.parent).endswith(f": {root} is; use data.root={root}")
    for folder in (root, root / "pushpins"):
        with pytest.raises(UserError, match=r"looks like mvtec_loco; use data=mvtec_loco$"):
            read_mvtec(folder)
