from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.csv_dataset import read_csv
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.samples import Sample, Split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "line 3"
    for name in ("1.png", "2.png", "10.png", "sub/a b.png", "sub/m.png", 'sub/it\'s "ü"\n,.png'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "outside.png").touch()
    return root


def _read(root: Path, text: str, **more: str | Path | list[str]) -> Split:
    file = root / "list.csv"
    file.write_text(text, encoding="utf-8", newline="")
    return read_csv(file, **more)  # type: ignore[arg-type]


def _failure(root: Path, text: str, **more: str | Path | list[str]) -> str:
    with pytest.raises(UserError) as caught:
        _read(root, text, **more)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def _problem(root: Path, row: str, header: str = "path,split,label,mask") -> tuple[str, str]:
    """Return the path and the reason of the one problem, in row 3."""
    split = _read(root, f"{header}\n1.png,train,,\n{row}\n")
    assert [sample.path for sample in split.train] == ["1.png"]
    assert split.test == []
    (problem,) = split.problems
    start = f"data.file={root / 'list.csv'}, row 3: "
    assert problem.reason.startswith(start)
    assert len(problem.reason.splitlines()) == 1
    return problem.path, problem.reason.removeprefix(start)


def _one(split: Split) -> Sample:
    (sample,) = [*split.train, *split.test]
    assert split.problems == []
    return sample


def test_paths_alone_are_training_images(root: Path) -> None:
    split = _read(root, "path\n10.png\n2.png\nsub/a b.png\n")
    assert [sample.path for sample in split.train] == ["2.png", "10.png", "sub/a b.png"]
    assert all(s.defect is None and s.injected is None and not s.extra for s in split.train)
    assert split.categories == ["line 3"]
    assert split.train[2].image == root / "sub/a b.png"
    assert (split.test, split.problems) == ([], [])
    assert split.notes == ["no test images: no test metrics"]


def test_all_columns(root: Path) -> None:
    split = _read(
        root,
        "Camera, SPLIT,Category,Path,Mask,Label\n"
        "3,train,nut,1.png,,\n"
        "3,TRAIN,nut,2.png,,OK\n"
        '7," Test ",nut,"sub/it\'s ""ü""\n,.png",sub/m.png,Deep scratch\n'
        ",test,,10.png,,good\n"
        ",train,,sub/a b.png,,bent\n",
    )
    assert split.problems == []
    assert [(s.path, s.category, s.defect, s.injected) for s in split.train] == [
        ("sub/a b.png", "line 3", "bent", True),
        ("1.png", "nut", None, None),
        ("2.png", "nut", None, False),
    ]
    normal, scratch = split.test
    assert (normal.path, normal.defect, normal.injected) == ("10.png", None, None)
    assert scratch.path == 'sub/it\'s "ü"\n,.png'
    assert (scratch.defect, scratch.mask) == ("Deep scratch", root / "sub/m.png")
    assert scratch.extra == {"Camera": "7"}
    assert split.train[0].extra == {"Camera": ""}
    assert "other columns, kept as they are: Camera" in split.notes[0]


def test_the_order_of_rows_does_not_matter(root: Path) -> None:
    rows = ["1.png,a", "2.png,b", "10.png,a"]
    one, other = (
        _read(root, "\n".join(["path,category", *each])) for each in (rows, reversed(rows))
    )
    assert (
        [s.path for s in one.train] == [s.path for s in other.train] == ["1.png", "10.png", "2.png"]
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_dialects(root: Path, delimiter: str, end: str, mark: str) -> None:
    rows = [["path", "label", "a;b,c\td", ""], ["1.png", "ok", "x,y;z\t", ""], [""] * 4, ["2.png"]]
    text = end.join(
        delimiter.join(f'"{cell}"' if len(cell) > 5 else cell for cell in row) for row in rows
    )
    split = _read(root, mark + end + text)
    assert [(s.path, s.injected) for s in split.train] == [("1.png", False), ("2.png", None)]
    assert [dict(s.extra) for s in split.train] == [{"a;b,c\td": "x,y;z\t"}, {"a;b,c\td": ""}]


def test_a_column_without_name_is_kept(root: Path) -> None:  # as pandas writes its index
    split = _read(root, ",path\n0,1.png\n1,2.png\n")
    assert [s.extra for s in split.train] == [{"column 1": "0"}, {"column 1": "1"}]


@pytest.mark.parametrize(
    ("labels", "defect", "injected"),
    [
        (["", "  "], None, None),
        (["0", "0.0", "normal", "Good", " OK ", "False"], None, False),
        (["1", "1.0", "TRUE"], "anomaly", True),
        (["anomaly"], "anomaly", True),
        (["bad"], "bad", True),
        ([" Öl\u00adfleck "], "Öl\u00adfleck", True),
        (["2"], "2", True),
    ],
)
def test_labels(root: Path, labels: list[str], defect: str | None, injected: bool | None) -> None:
    for label in labels:
        sample = _one(_read(root, f"path,label,x\n1.png,{label},\n"))
        assert (sample.defect, sample.injected) == (defect, injected)


@pytest.mark.parametrize("label", ["nan", "None", "NULL", "unknown", "-1", "?"])
def test_unclear_labels(root: Path, label: str) -> None:
    path, reason = _problem(root, f"2.png,train,{label},")
    assert path == "2.png"
    assert reason == (f"label {label} may mean unknown or normal; leave it empty, or write normal")


def test_a_test_image_needs_a_label(root: Path) -> None:
    assert _problem(root, "2.png,test,,")[1].startswith("a test image needs a label; write normal")


def test_splits(root: Path) -> None:
    assert "split val is unknown; write train or test" in _problem(root, "2.png,val,ok,")[1]
    assert "split is empty, which is unknown" in _problem(root, "2.png,,ok,")[1]


def test_paths_in_other_spellings(root: Path) -> None:
    (root / "sub\\10.png").touch()  # a backslash may be part of a name
    for text, name in {
        "sub\\a b.png": "sub/a b.png",
        "sub\\10.png": "sub\\10.png",
        " 1.png ": "1.png",
        "./sub/../2.png": "2.png",
        str(root / "1.png"): "1.png",
    }.items():
        sample = _one(_read(root, f'path,x\n"{text}",\n'))
        assert (sample.path, sample.image) == (name, root / name)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "sub/../../outside.png",
        "..\\outside.png",
        "/etc/hostname",
        "C:\\1.png",
        "~",
    ],
)
@pytest.mark.parametrize("column", ["path", "mask"])
def test_nothing_leads_out_of_the_root(root: Path, path: str, column: str) -> None:
    row = f"{path},train,bad," if column == "path" else f"2.png,train,bad,{path}"
    given, reason = _problem(root, row)
    assert given == (path if column == "path" else "2.png")
    what = "is not a readable file in" if path == "~" else "leads out of"
    assert reason.startswith(f"{path} {what} {root}; fix it or data.root")


def test_absolute_paths_outside(root: Path) -> None:
    assert "leads out of" in _problem(root, f"{root.parent / 'outside.png'},train,,")[1]
    assert "leads out of" in _problem(root, f"{root}2/1.png,train,,")[1]


@pytest.mark.parametrize("path", ["none.png", "sub", ".", "x" * 5000, "lost.png", "loop.png"])
def test_files_that_are_not_there(root: Path, path: str) -> None:
    (root / "lost.png").symlink_to(root / "nowhere")
    (root / "loop.png").symlink_to(root / "loop.png")
    assert "is not a readable file in" in _problem(root, f"{path},train,,")[1]
    assert _problem(root, f"2.png,test,bad,{path}")[1].startswith(f"{path} is not a readable")


def test_other_faults_of_rows(root: Path) -> None:
    assert "an empty name is not a readable file in" in _problem(root, ",train,ok,")[1]
    assert "1.png is listed in row 2 already; keep one" in _problem(root, "1.png,test,ok,")[1]
    assert "1.png is listed in row 2 already" in _problem(root, "sub/..\\1.png,train,,")[1]
    assert "more cells than the header" in _problem(root, "a,b.png,train,ok,sub/m.png")[1]
    path, reason = _problem(root, '"a\nb.png",train,,')
    assert path == "a\nb.png"
    assert "'a\\nb.png' is not a readable" in reason


def test_a_faulty_row_does_not_hide_others(root: Path) -> None:
    split = _read(root, "path,split\n1.png,train\nx,train\n../y,train\n2.png,train\n10.png,\n")
    assert [sample.path for sample in split.train] == ["1.png", "2.png"]
    rows = [p.reason.split("row ")[1].split(":")[0] for p in split.problems]
    assert (rows, [p.path for p in split.problems]) == (["3", "4", "6"], ["x", "../y", "10.png"])


def test_masks(root: Path) -> None:
    split = _read(
        root,
        "path,split,label,mask\n1.png,train,,\n2.png,test,bad,sub\\m.png\n10.png,test,bad,\n"
        "sub/a b.png,test,ok,sub/m.png\n",
    )
    assert [s.mask for s in split.test] == [root / "sub/m.png", None, None]
    assert [note.split(": ", 1)[1] for note in split.notes] == [
        "masks of images not known to show a defect, unused: 1",
        "1 of 2 masks are missing: pixel metrics are skipped",
    ]


def test_what_is_missing_is_noted(root: Path) -> None:
    split = _read(
        root,
        "path,split,label,category\n1.png,train,,a\n2.png,train,,b\n10.png,test,1,a\n",
    )
    assert split.notes == [
        "category a: no masks (column mask): pixel metrics are skipped",
        "category a: no normal test images: image metrics are skipped",
        "category b: no test images: no metrics for it",
    ]


def test_categories(root: Path) -> None:
    text = "path,category\n1.png,a\n2.png,b\nnone.png,b\n"
    split = _read(root, text, categories=["a"])
    assert Counter(s.category for s in split.train) == {"a": 1}
    assert split.problems == []  # of rows that are not read
    assert "data.categories=[c]: not in data.file=" in _failure(root, text, categories=["c"])


def test_a_category_without_training_images(root: Path) -> None:
    message = _failure(root, "path,split,label\n1.png,test,0\n2.png,test,1\n")
    assert "category line 3 has no training images, all 2 are test images; add some" in message
    message = _failure(root, "path\nx.png\ny.png\n")
    assert "2 cannot be used, the first because data.file=" in message
    assert "row 2: x.png is not a readable file" in message


def test_a_root_elsewhere(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lists" / "a.csv"
    file.parent.mkdir()
    file.write_text("path\n1.png\n")
    assert [s.path for s in read_csv(file, root).train] == ["1.png"]
    monkeypatch.chdir(root)
    assert read_csv(str(file), ".").categories == ["line 3"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_csv("~/lists/a.csv", "~/line 3").train) == 1
    with pytest.raises(UserError, match=r"data\.root=\S+none does not exist"):
        read_csv(file, tmp_path / "none")


def test_files_that_are_no_table(root: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.file=FILE is missing: name a table"):
        read_csv(None)
    with pytest.raises(UserError, match=r"none\.csv cannot be read \(No such file"):
        read_csv(root / "none.csv")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_csv(root)
    (root / "excel.csv").write_bytes("path\nÜ.png\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"excel\.csv is not text in UTF-8; save it as 'CSV UTF-8'"):
        read_csv(root / "excel.csv")
    (root / "excel.csv").write_bytes("path\nÜ.png\n".encode("utf-16"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_csv(root / "excel.csv")


def test_wrong_headers(root: Path) -> None:
    assert "has no column path (it begins with filename,label)" in _failure(
        root, "filename,label\n"
    )
    assert "has no column path (it is empty)" in _failure(root, "\n \n")
    assert "lists no image; add a row for each" in _failure(root, "path,label\n,\n")
    assert "has several columns named label" in _failure(root, "path,label,Label\n1.png,0,1\n")
    assert "line 3: unexpected end of data" in _failure(root, 'path\n1.png\n"2.png\n')
