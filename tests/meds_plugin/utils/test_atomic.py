from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from meds_plugin.utils.atomic import write_csv, write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path


def test_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_writes_names_that_need_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = ['a,"b"\nc', "d\re", "f\r\n"]
    write_csv(path, ("path", "score"), [{"path": name, "score": None} for name in names])
    assert path.read_bytes() == b'path,score\n"a,""b""\nc",\n"d\re",\n"f\r\n",\n'
    with path.open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
