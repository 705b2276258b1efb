"""Where predictions are written."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from meds_plugin.prediction.folder import PredictionFolder, ScoreRow, is_inside, png_name
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_no_two_images_share_a_file_name() -> None:
    long = "x" * 251
    names = ["a.png", "a.jpg", "a.png.png", "a", "d/a.png", "d/a", f"{long}.png", f"{long}.jpg"]
    names += ["ä" * 120 + ".png", "ä" * 121 + ".png"]
    files = [png_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert files[0] == "a.png.png"
    assert files[4] == "d/a.png.png"
    assert all(len(part.encode()) < 220 for name in files for part in name.split("/"))
    assert all(name.endswith(".png") for name in files)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "", ".."])
def test_names_stay_in_the_folder(name: str) -> None:
    assert not is_inside(name)


def test_a_folder_with_something_in_it_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty: give another folder, or overwrite=true"):
        PredictionFolder(tmp_path, overwrite=False)
    with pytest.raises(UserError, match="is a file"):
        PredictionFolder(tmp_path / "mine.txt", overwrite=True)
    assert PredictionFolder(tmp_path / "new", overwrite=False).path == tmp_path / "new"


def test_overwriting_removes_what_is_not_written_anew_and_nothing_else(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path, overwrite=False)
    for name in ("a.png", "in/b.png"):
        folder.write_image("masks", name, b"old")
    folder.finish([ScoreRow("a.png", score="1.0"), ScoreRow("in/b.png", score="2.0")], {})
    (tmp_path / "masks" / "mine.png").write_bytes(b"mine")
    with (tmp_path / "scores.csv").open("a") as file:
        file.write("../../secret,,3.0,1,1.0,\n")
    again = PredictionFolder(tmp_path, overwrite=True)
    again.write_image("masks", "a.png", b"new")
    assert (tmp_path / "masks/in/b.png.png").exists()  # until all is done
    again.finish([ScoreRow("a.png", score="1.0")], {"judged": 1})
    assert (tmp_path / "masks/a.png.png").read_bytes() == b"new"
    assert not (tmp_path / "masks/in/b.png.png").exists()
    assert (tmp_path / "masks/mine.png").read_bytes() == b"mine"
    assert json.loads((tmp_path / "summary.json").read_text()) == {"judged": 1}


def test_the_table_holds_any_name(tmp_path: Path) -> None:
    names = ['say "hi", you.png', "two\nlines.png", "=1+1.png"]
    folder = PredictionFolder(tmp_path, overwrite=False)
    folder.finish([ScoreRow(name, error="bad") for name in names], {})
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "category", "score", "label", "threshold", "error"]
    assert [row["path"] for row in rows] == names
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = PredictionFolder(tmp_path / "file" / "in", overwrite=False)
    with pytest.raises(UserError, match="cannot be written"):
        folder.finish([], {})
    with pytest.raises(UserError, match="cannot be written"):
        folder.write_image("masks", "a.png", b"")
