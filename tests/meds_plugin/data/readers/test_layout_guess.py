from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES: dict[str, tuple[str | None, list[str]]] = {
    "mvtec": ("mvtec", ["bottle/train/good/0.png", "bottle/test/hole/0.png"]),
    "mvtec, one category": ("mvtec", ["train/good/0.png", "test/good/0.png"]),
    "mvtec, good and bad": ("mvtec", ["bolt/train/good/0.png", "bolt/test/bad/0.png"]),
    "mvtec, VisA's name": ("mvtec", ["candle/train/good/0.png", "candle/test/melt/0.png"]),
    "mvtec, other words": ("mvtec", ["bolt/Train/OK/0.png", "bolt/Test/NG/0.png"]),
    "visa, other words": ("visa", ["pcb1/train/Good/0.JPG", "pcb1/test/Bad/0.JPG"]),
    "mvtec 2": ("mvtec_ad_2", ["can/train/good/0.png", "can/test_public/bad/0.png"]),
    "mvtec 2, one category": ("mvtec_ad_2", ["train/good/0.png", "test_public/bad/0.png"]),
    "loco": (
        "mvtec_loco",
        [
            *("pushpins/train/good/0.png", "pushpins/test/logical_anomalies/0.png"),
            "pushpins/ground_truth/logical_anomalies/0/0.png",
        ],
    ),
    "loco, one category": (
        "mvtec_loco",
        ["train/good/0.png", "test/good/0.png", "test/structural_anomalies/0.png"],
    ),
    "loco with one mask an image": (
        "mvtec",
        [
            *("train/good/0.png", "test/logical_anomalies/0.png"),
            "ground_truth/logical_anomalies/0_mask.png",
        ],
    ),
    "btad": ("btad", ["01/train/ok/0.bmp", "01/test/ko/0.bmp", "01/ground_truth/ko/0.png"]),
    "btad, training only": ("btad", ["03/train/ok/0.bmp"]),
    "mvtec, BTAD's words": ("mvtec", ["bolt/train/ok/0.png", "bolt/test/ko/0.png"]),
    "mvtec, BTAD's name": ("mvtec", ["01/train/ok/0.png", "01/test/hole/0.png"]),
    "kolektor": ("kolektor_sdd", ["kos01/Part0.jpg", "kos01/Part0_label.bmp"]),
    "kolektor, no labels": ("folder", ["kos01/Part0.jpg"]),
    "kolektor 2": ("kolektor_sdd2", ["train/10000.png", "train/10000_GT.png"]),
    "kolektor 2, tests only": ("kolektor_sdd2", ["test/20000.png", "test/20000_GT.png"]),
    "visa": ("visa", ["split_csv/1cls.csv", "candle/Data/Images/Normal/0.JPG"]),
    "visa, no split": ("visa", ["candle/Data/Images/Normal/0.JPG"]),
    "visa, converted": ("visa", ["pcb1/train/good/0.JPG", "pcb1/test/bad/0.JPG"]),
    "visa, converted below": ("visa", ["1cls/pcb1/train/good/0.JPG", "1cls/pcb1/test/bad/0.JPG"]),
    "real_iad": ("real_iad", ["realiad_1024/mint/OK/0.jpg", "realiad_jsons/mint.json"]),
    "real_iad, lists only": ("real_iad", ["realiad_jsons_fuiad_0.4/mint.json"]),
    "folder": ("folder", ["0.png"]),
    "folder, deep": ("folder", ["a/b/c/d/0.png", "a/x.txt"]),
    "no image": (None, ["a/b/c.txt", ".hidden/0.png"]),
}


def _tree(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(("expected", "names"), TREES.values(), ids=TREES)
def test_guess(tmp_path: Path, expected: str | None, names: list[str]) -> None:
    assert guess_layout(_tree(tmp_path / "root", names)) == expected
    assert guess_layout(str(tmp_path / "root")) == expected


def test_what_is_no_folder_looks_like_nothing(tmp_path: Path) -> None:
    assert guess_layout(tmp_path / "none") is None
    assert guess_layout(_tree(tmp_path, ["0.png"]) / "0.png") is None


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path, target_is_directory=True)
    assert guess_layout(tmp_path) is None


def test_folders_that_cannot_be_listed_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, ["locked/0.png", "open/0.png"])
    listing = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listing(path)

    def scandir(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(os, "scandir", scandir)
    assert guess_layout(tmp_path) == "folder"
    assert guess_layout(tmp_path / "locked") is None


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("asked", ["mvtec", "visa", "real_iad", "btad", "kolektor_sdd"])
def test_the_line_names_what_it_looks_like(tmp_path: Path, tree: str, asked: str) -> None:
    looks_like, names = TREES[tree]
    root = _tree(tmp_path / "above" / "root", names)
    message = wrong_layout(root, asked, "THIS")
    assert len(message.splitlines()) == 1
    assert message.startswith(f"data.root={root} is not laid out as {asked} (expected THIS): it ")
    use = "mvtec" if looks_like == "mvtec_ad_2" else looks_like
    if looks_like is None or use == asked:
        assert "it holds the folders" in message
    else:
        assert message.endswith(f": it looks like {looks_like}; use data={use}")


def test_the_right_folder_nearby_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _tree(tmp_path / "set", TREES["real_iad"][1])
    above = wrong_layout(tmp_path, "real_iad", "THIS")
    assert above.endswith(f": {root} is; use data.root={root}")
    inside = wrong_layout(root / "realiad_1024", "real_iad", "THIS")
    assert inside.endswith(f": {root} is; use data.root={root}")
    monkeypatch.chdir(root / "realiad_1024")
    assert wrong_layout(".", "real_iad", "THIS").endswith(f": {root} is; use data.root={root}")


def test_a_second_mvtec_is_no_other_data_set(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root", TREES["mvtec 2"][1])
    assert "looks like" not in wrong_layout(root, "mvtec", "THIS")


def test_only_some_folders_are_listed_by_name(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root", [f"{n}/x.txt" for n in range(12)])
    message = wrong_layout(root, "mvtec", "THIS")
    assert message.endswith(": it holds the folders 0, 1, 2, 3, 4, ...; name the right one")
    assert wrong_layout(root / "0", "mvtec", "THIS").endswith(
        "it holds no folders; name the right one"
    )
