from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.data import DataSettings, prepare
from meds_plugin.data.readers.kolektor_sdd import read_kolektor_sdd
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.readers.trees import draw, mark

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.samples import Sample


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten items of three parts each, of which the second one of an odd item is defective."""
    root = tmp_path / "KolektorSDD"
    for item in range(1, 11):
        for part in range(3):
            name = f"kos{item:02}/Part{part}"
            draw(root, f"{name}.jpg")
            places = [(part, part)] if part == 1 and item % 2 else []
            mark(root, f"{name}_label.bmp", *places, value=1)
    return root


def _items(samples: list[Sample]) -> set[str]:
    return {sample.path.split("/")[0] for sample in samples if not sample.is_anomaly}


def _failure(root: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_kolektor_sdd(root, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_items_stay_together(root: Path) -> None:
    split = read_kolektor_sdd(root)
    assert split.categories == ["kolektor_sdd"]
    assert len(split.train) + len(split.test) == 30
    assert len(_items(split.train)) == 7
    assert not _items(split.train) & _items(split.test)
    assert all(sample.injected is False and not sample.is_anomaly for sample in split.train)
    defective = [sample for sample in split.test if sample.is_anomaly]
    assert [sample.path for sample in defective] == [
        f"kos{item:02}/Part1.jpg" for item in range(1, 11, 2)
    ]
    assert all(s.mask == root / s.path.replace(".jpg", "_label.bmp") for s in defective)
    assert all(sample.mask is None for sample in split.test if not sample.is_anomaly)
    labels = Counter(sample.label for sample in split.test)
    assert labels["marked mask"] == 5
    assert split.notes == []
    settings = DataSettings(noise=0.1, mask_values="nonzero")
    assert prepare(split, settings).noise.counts == {"kolektor_sdd": round(0.1 * len(split.train))}


def test_the_lot_is_kept_and_nested(root: Path) -> None:
    split = read_kolektor_sdd(root)
    again = read_kolektor_sdd(root)
    assert [s.path for s in split.train] == [s.path for s in again.train]
    assert _items(read_kolektor_sdd(root, seed=1).train) != _items(split.train)
    fewer = read_kolektor_sdd(root, train_share=0.4)
    assert _items(fewer.train) < _items(split.train)
    assert len(_items(read_kolektor_sdd(root, train_share=0.01).train)) == 1
    full = read_kolektor_sdd(root, train_share=1)
    assert (len(full.train), len(full.test)) == (25, 5)
    assert "no normal test images" in full.notes[0]


@pytest.mark.parametrize("share", [0, 1.5, True, "half", float("nan")])
def test_wrong_shares(root: Path, share: object) -> None:
    assert "data.source.train_share must be a share above 0" in _failure(root, train_share=share)


def test_wrong_seed_and_category(root: Path) -> None:
    assert "data.source.seed must be a whole number, got 0.5" in _failure(root, seed=0.5)
    message = _failure(root, categories=["kos01"])
    assert message.endswith("not in data=kolektor_sdd; there are: kolektor_sdd")


def test_masks_that_are_missing_or_damaged(root: Path) -> None:
    (root / "kos01/Part0_label.bmp").unlink()
    (root / "kos02/Part0_label.bmp").write_bytes(b"BM, and no more")
    split = read_kolektor_sdd(root)
    assert len(split.train) + len(split.test) == 28
    lost, damaged = split.problems
    assert lost.path == "kos01/Part0.jpg"
    where = root / lost.path
    assert lost.reason == f"{where} has no Part0_label.*: add its mask or remove it"
    assert damaged.path == "kos02/Part0.jpg"
    assert damaged.reason.startswith(f"{root / 'kos02/Part0_label.bmp'} ")


def test_other_files_and_empty_folders(root: Path) -> None:
    (root / "kos11").mkdir()
    draw(root, "kos01/notes.png", "other/Part0.jpg")
    split = read_kolektor_sdd(root)
    assert split.notes == ["no images in kos11", "kos01: not read: notes.png"]
    assert len(split.train) + len(split.test) == 30


def test_two_files_of_one_stem(root: Path) -> None:
    draw(root, "kos01/Part0_label.png")
    assert "differ only in their ending" in _failure(root)


def test_other_layouts_are_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "it holds no folders" in _failure(tmp_path / "empty")
    assert _failure(root / "kos01").endswith(f": {root} is; use data.root={root}")
    with pytest.raises(UserError, match=r"looks like kolektor_sdd; use data=kolektor_sdd$"):
        read_mvtec(root)
