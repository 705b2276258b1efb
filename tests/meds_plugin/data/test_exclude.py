from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.exclude import exclude, read_exclude
from meds_plugin.data.samples import Sample
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my list"


def _names(file: Path, text: str) -> set[str]:
    file.write_text(text, encoding="utf-8", newline="")
    return read_exclude(file)


def _failure(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_exclude(file)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert f"data.exclude={file}" in message
    return message


def _sample(path: str) -> Sample:
    return Sample(path, "all", None, image=b"")  # type: ignore[arg-type]


def test_plain_text(file: Path) -> None:
    text = '# seen on Monday\r\na b.png\r\n\r\n  \nit\'s "ü".png\n../x.png\nlast.png'
    assert _names(file, text) == {"a b.png", 'it\'s "ü".png', "../x.png", "last.png"}
    assert _names(file, "") == set()
    assert _names(file, "\ufeffa.png\n") == {"a.png"}
    assert _names(file, "path/a.png\na,b;c.png") == {"path/a.png", "a,b;c.png"}


def test_a_table_of_paths(file: Path) -> None:
    assert _names(file, 'Path\na.png\n"b,\nc.png"\n\n') == {"a.png", "b,\nc.png"}
    assert _names(file, "rank;PATH;score\n1;a,b.png;0.5\n2;c.png;0.4\n") == {"a,b.png", "c.png"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_decisions_of_a_review(file: Path, delimiter: str) -> None:
    rows = [
        ("Path", "Decision", "note"),
        ("1.png", "drop", ""),
        ("2.png", " Exclude ", "x"),
        ("3.png", "remove", ""),
        ("4.png", "DEFECT", ""),
        ("5.png", "keep", ""),
        ("6.png", "undecided", ""),
        ("7.png", "", ""),
        ("8.png",),
    ]
    text = "\n".join(delimiter.join(row) for row in rows)
    assert _names(file, text) == {"1.png", "2.png", "3.png", "4.png"}


def test_a_review_without_drops(file: Path) -> None:
    assert _names(file, "path,decision\na.png,keep\n") == set()


def test_faults_in_tables(file: Path) -> None:
    start = "path,decision\na.png,keep\n\n"
    assert "row 4: decision maybe is unknown; write drop" in _failure(file, start + "b.png,maybe\n")
    assert "row 4 has no path" in _failure(file, start + " ,drop\n")
    assert "row 4 contradicts row 2 on a.png" in _failure(file, start + "a.png,drop\n")
    assert "row 4 has more cells than the header" in _failure(file, start + "b,c.png,drop\n")
    assert "several columns named path" in _failure(file, "path,Path\na,b\n")
    assert "row 4: decision 'a\\nb' is" in _failure(file, start + 'b.png,"a\nb"\n')
    assert "line 4: " in _failure(file, start + '"b.png,drop\n')


def test_files_that_are_no_text(file: Path, tmp_path: Path) -> None:
    assert "is not text in UTF-8; save it as 'CSV UTF-8'" in _failure(file, b"\xfc.png")
    for encoding in ("utf-16", "utf-16-le"):
        assert "is not text in UTF-8" in _failure(file, "path\na.png".encode(encoding))
    for missing in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match=r"^data\.exclude=\S+ cannot be read \("):
            read_exclude(missing)


def test_a_csv_needs_a_column_path(tmp_path: Path) -> None:
    assert "has no column path" in _failure(tmp_path / "x.CSV", "filename\na.png\n")
    assert _names(tmp_path / "x.txt", "filename\na.png\n") == {"filename", "a.png"}


def test_leaving_out() -> None:
    samples = [_sample(name) for name in ("a/1.png", "a/2.png", " b.png", "c\\d.png", "e/f.png")]
    names = {"./a/2.png", " b.png", "c\\d.png", "e\\f.png ", "10.png", "9.png", "../a/1.png", ""}
    remaining, unknown = exclude(samples, names)
    assert remaining == samples[:1]
    assert unknown == ["", "../a/1.png", "10.png", "9.png"]


def test_an_exact_name_goes_first() -> None:
    samples = [_sample("a.png"), _sample(" a.png")]
    assert exclude(samples, {" a.png"}) == ([samples[0]], [])
    assert exclude(samples, {"a.png "}) == ([samples[1]], [])


def test_nothing_to_leave_out() -> None:
    samples = [_sample("b"), _sample("a")]
    assert exclude(samples, set()) == (samples, [])
