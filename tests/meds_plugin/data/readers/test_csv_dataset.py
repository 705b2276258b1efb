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


def _read(root: Path, text: str, **more: object) -> Split:
    file = root / "list.csv"
    file.write_text(text, encoding="utf-8", newline="")
    return read_csv(file, **more)  # type: ignore[arg-type]


def _failure(root: Path, text: str, **more: object) -> str:
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
        "3,TRAIN,nut,2.png,,Good\n"
        '7," Test ",nut,"sub/it\'s ""ü""\n,.png",sub/m.png,Deep scratch\n'
        ",test,,10.png,,good\n"
        ",train,nut,sub/a b.png,,bent\n"
        ",train,,sub/m.png,,\n",
    )
    assert split.problems == []
    assert [(s.path, s.category, s.defect, s.injected) for s in split.train] == [
        ("sub/m.png", "line 3", None, None),
        ("1.png", "nut", None, None),
        ("2.png", "nut", None, False),
        ("sub/a b.png", "nut", "bent", True),
    ]
    assert [s.label for s in split.train] == [None, None, "Good", "bent"]
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
        (["", "  ", "nan", "None", "NULL", "unknown", "?"], None, None),
        (
            ["0", "0.0", "normal", "Good", " OK ", "False", "PASS", "i. O.", "normal_test"],
            None,
            False,
        ),
        (["1", "1.0", "TRUE"], "anomaly", True),
        (["anomaly"], "anomaly", True),
        (["bad"], "bad", True),
        (["n.i.O."], "n.i.O.", True),
        ([" Öl\u00adfleck "], "Öl\u00adfleck", True),
        (["2"], "2", True),
    ],
)
def test_labels(root: Path, labels: list[str], defect: str | None, injected: bool | None) -> None:
    for label in labels:
        split = _read(root, f"path,label,x\n1.png,{label},\n2.png,,\n")
        assert split.problems == []
        sample, other = split.train
        assert (sample.defect, sample.injected) == (defect, injected)
        assert sample.label == (None if injected is None else label.strip())
        assert (other.defect, other.injected, other.label) == (None, None, None)


def _table(header: str, *rows: str) -> str:
    """Return a table of up to four images; a row is what follows the path."""
    names = ("1.png", "2.png", "10.png", "sub/a b.png", "sub/m.png")
    lines = [f"{name},{row}" for name, row in zip(names, rows, strict=False)]
    return "\n".join([f"path,{header}", *lines])


def _kinds(split: Split) -> dict[str, str]:
    """Return what each image was taken for."""
    assert split.problems == []
    train = {s.path: s.defect or ("?" if s.injected is None else "normal") for s in split.train}
    return train | {s.path: s.defect or "normal" for s in split.test}


@pytest.mark.parametrize(
    ("normal", "defective"),
    [
        *[("PASS", "FAIL"), ("i.O.", "n.i.O."), ("OK", "NG"), ("gut", "schlecht"), ("0", "1")],
        *[("normal_test", "abnormal"), ("no_defect", "crack"), ("healthy", "Rost")],
        *[("False", "True"), ("not defective", "defective")],
    ],
)
def test_words_for_normal(root: Path, normal: str, defective: str) -> None:
    text = _table("split,label", f"train,{normal}", f"test,{normal}", f"test,{defective}")
    split = _read(root, text)
    assert [sample.injected for sample in split.train] == [False]
    kind = "anomaly" if defective in ("1", "True") else defective
    assert [sample.defect for sample in split.test] == [None, kind]
    assert [sample.label for sample in split.test] == [normal, defective]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (("good", "OK", "NG"), "good and OK are different words for normal"),
        (("PASS", "passed", "FAIL"), "PASS and passed are different words for normal"),
        (("0", "good", "1"), "0 and good are different words for normal"),
        (("normal", "nomal", "x"), "nomal (beside normal) may mean normal or defective"),
        (("normal", "normal_2", "x"), "normal_2 (beside normal) may mean normal or defective"),
        (("1", "1", "-1"), "-1 may mean normal or defective"),
        (("y", "y", "n"), "y (beside n) may mean normal or defective"),
        (("no crack", "no crack", "crack"), "no crack may mean normal or defective"),
        (("0.1", "0.2", "0.9"), "0.1 may mean normal or defective"),
    ],
)
def test_doubtful_labels_are_refused(root: Path, labels: tuple[str, str, str], why: str) -> None:
    parts = ("train", "test", "test")
    text = _table("split,label", *(f"{p},{x}" for p, x in zip(parts, labels, strict=True)))
    start = f"data.file={root / 'list.csv'}, column label: {why}; write one word for normal, or "
    assert _failure(root, text).startswith(f"{start}name what means normal, as in ")


def test_the_line_shows_what_to_give(root: Path) -> None:
    for labels, setting in (
        (("good", "OK"), "'data.normal=[good,OK]'"),
        (("nomal", "x"), "data.normal=WORD"),
        (("In Ordnung", "gut"), "'data.normal=[In Ordnung,gut]'"),
        (("None", "x"), "data.normal=None"),
    ):
        text = _table("split,label", "train,", *(f"test,{label}" for label in labels))
        assert _failure(root, text).endswith(f"name what means normal, as in {setting}")


def test_missing_labels_of_test_images_are_refused(root: Path) -> None:
    for word in ("nan", "None", "unknown"):
        text = _table("split,label", "train,", f"test,{word}", "test,x")
        message = _failure(root, text)
        assert f"column label: {word} labels test images, but may mean normal or unknown" in message
        assert message.endswith(f"as in data.normal={word}")
        assert _kinds(_read(root, text, normal=word))["2.png"] == "normal"
        # Beside a word for normal it means nothing, and the row can be left out.
        text = _table("split,label", "train,good", f"test,{word}", "test,x")
        (problem,) = _read(root, text).problems
        assert problem.reason.split("row 3: ")[1].startswith(
            f"label {word} says nothing, and a test image needs a label"
        )
    text = _table("split,defect", "train,", "test,", "test,x")
    assert "column defect: nothing labels test images, but may" in _failure(root, text)
    named = _kinds(_read(root, text, normal=""))
    assert named == {"1.png": "normal", "2.png": "normal", "10.png": "x"}
    # Where the column asks for a defect, none is an answer.
    split = _read(root, _table("split,defect_type", "train,", "test,none", "test,x"))
    assert _kinds(split) == {"1.png": "?", "2.png": "normal", "10.png": "x"}


def test_no_usual_word_for_normal(root: Path) -> None:
    text = _table("split,label,mask", "train,,", "test,g,", "test,b,", "test,b,")
    assert (
        "column label: none of b (2), g (1) is a usual word for normal; name what means normal, as "
        "in data.normal=WORD, or data.normal=[] if all are defects"
    ) in _failure(root, text)
    assert set(_kinds(_read(root, text, normal="g")).values()) == {"?", "normal", "b"}
    assert set(_kinds(_read(root, text, normal=[])).values()) == {"?", "g", "b"}
    # What has a mask is a defect: the other kind may be normal.
    masked = _table("split,label,mask", "train,,", "test,g,", "test,b,sub/m.png")
    assert "none of g (1), b (1) is a usual word" in _failure(root, masked)
    masked = _table("split,label,mask", "train,,", "test,g,sub/m.png", "test,b,sub/m.png")
    assert set(_kinds(_read(root, masked)).values()) == {"?", "g", "b"}
    assert "none of bad (1), b (1) is" in (
        _failure(root, _table("split,label", "train,", "test,bad", "test,b"))
    )
    for labels in (("b", "b"), ("bad", "NG"), ("1", "1")):
        split = _read(root, _table("split,label", "train,", *(f"test,{x}" for x in labels)))
        assert all(sample.is_anomaly for sample in split.test)


def test_training_images_that_are_all_defective_are_refused(root: Path) -> None:
    for label in ("1", "Klasse A", "bad"):
        text = _table("split,label", f"train,{label}", f"train,{label}", "test,0")
        assert (
            f"category line 3: the labels of all 2 training images ({label}) are taken as defects"
            "; name the word for normal, as in data.normal=WORD, correct them, or rename a column "
        ) in _failure(root, text)
        assert _kinds(_read(root, text, normal=label))["1.png"] == "normal"


def test_the_words_for_normal_may_be_named(root: Path) -> None:
    text = _table("split,label", "train,1", "train,1.0", "test,1", "test,0")
    for normal in (1, 1.0, "1", ["1"]):
        assert _kinds(_read(root, text, normal=normal)) == {
            **dict.fromkeys(("1.png", "2.png", "10.png"), "normal"),
            "sub/a b.png": "anomaly",
        }
    text = _table("split,label", "train,good", "test,OK", "test,yes", "test,NG")
    assert list(_kinds(_read(root, text, normal=["good", "ok"])).values()) == [
        *("normal", "normal", "anomaly", "NG")
    ]
    # Only these: the other words lose their usual meaning.
    assert _kinds(_read(root, text, normal="Good"))["2.png"] == "OK"
    assert (
        f"data.normal=gut: data.file={root / 'list.csv'}, column label has no such label, but "
        in (_failure(root, text, normal="gut"))
    )


def test_masks_that_contradict_the_labels(root: Path) -> None:
    text = _table("split,label,mask", "train,,", "test,0,sub/m.png", "test,1,")
    assert "all masks belong to images labelled 0, which is taken as normal" in _failure(root, text)
    assert _kinds(_read(root, text, normal=1))["2.png"] == "anomaly"


def test_a_test_image_needs_a_label(root: Path) -> None:
    assert _problem(root, "2.png,test,,")[1].startswith("a test image needs a label; write normal")


def test_splits(root: Path) -> None:
    assert "split A is unknown; write train or test" in _problem(root, "2.png,A,ok,")[1]
    assert "split is empty, which is unknown" in _problem(root, "2.png,,ok,")[1]
    assert "split nan is unknown" in _problem(root, "2.png,nan,ok,")[1]


def test_words_for_splits(root: Path) -> None:
    text = _table("split,label", "Training,ok", "TEST,ok", "hold-out,x", "Val,ok", "validation,x")
    split = _read(root, text)
    assert [s.path for s in split.train] == ["1.png"]
    assert [s.path for s in split.test] == ["2.png", "10.png"]
    assert any("rows of the split val, left out: 2" in note for note in split.notes)
    message = _failure(root, _table("split", "train", "val"))
    assert "has rows of the split val but none of test; write test to test on them" in message


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("image_path,label,label_index,mask_path,split", ("label", "label_index")),
        ("Image Path,Target,x,MASK-PATH,Subset", ("Target",)),
        ("filename,is_anomaly,x,gt_path,split", ("is_anomaly",)),
        ("image,Class,x,Mask,split", ("Class",)),
        ("imagePath,labelIndex,x,maskPath,split", ("labelIndex",)),
    ],
)
def test_columns_by_other_names(root: Path, header: str, names: tuple[str, ...]) -> None:
    text = f"{header}\n1.png,0,0,,train\n2.png,0,0,nan,test\n10.png,1,1,sub/m.png,test\n"
    split = _read(root, text)
    assert _kinds(split) == {"1.png": "normal", "2.png": "normal", "10.png": "anomaly"}
    assert [s.mask for s in split.test] == [None, root / "sub/m.png"]
    path = header.split(",")[0]
    assert f"data.file={root / 'list.csv'}: columns read: {path} as path" in split.notes[0]
    assert (f"{names[0]} as label" in split.notes[0]) == (names[0] != "label")


def test_one_of_several_columns_for_a_thing(root: Path) -> None:
    split = _read(root, _table("label_index,image,label,defect_type", "0,,good,", "1,,x,x"))
    assert _kinds(split) == {"1.png": "normal", "2.png": "x"}
    assert split.notes[0].endswith("kept as they are: label_index, image, defect_type")
    assert split.train[1].extra == {"label_index": "1", "image": "", "defect_type": "x"}


def test_a_column_of_another_meaning_is_left_alone(root: Path) -> None:
    split = _read(root, _table("class,set,phase", "bolt,A,1", "nut,B,2"))
    assert _kinds(split) == {"1.png": "?", "2.png": "?"}
    assert split.train[0].extra == {"class": "bolt", "set": "A", "phase": "1"}
    split = _read(root, _table("class,defect_type", "bolt,none", "bolt,crack"))
    assert _kinds(split) == {"1.png": "normal", "2.png": "crack"}


def test_columns_of_labels_must_agree(root: Path) -> None:
    for header, row, what in (
        ("label_index,label", "1,good", "label good contradicts label_index 1; correct one"),
        ("label_index,label", "0,crack", "label crack contradicts label_index 0"),
        ("defect_type,label", "crack,0", "label 0 contradicts defect_type crack"),
        ("defect_type,label", "none,1", "label 1 contradicts defect_type none"),
    ):
        split = _read(root, _table(f"split,{header}", "train,,", f"test,{row}"))
        assert what in split.problems[0].reason
    assert _read(root, _table("class,label", "nut,0")).problems == []  # some other class


def test_a_category_may_be_missing(root: Path) -> None:
    split = _read(root, _table("category", "nan", "", "nut"))
    assert [s.category for s in split.train] == ["line 3", "line 3", "nut"]


def test_columns_to_rename_are_named(root: Path) -> None:
    assert "has no column path (it begins with Bild,label); rename its column Bild to path" in (
        _failure(root, "Bild,label\n1.png,good\n")
    )
    for header, cells in (
        ("Menge", ("Train", "test")),
        ("set", ("train", "val")),
        ("is_train", ("1", "0")),
        ("Test", ("False", "True")),
    ):
        message = _failure(root, _table(header, *cells))
        assert f"the column {header} holds {', '.join(cells)}; rename it to split" in message
    assert "which its 1 test images need; the column Befund holds i.O., n.i.O.: if it labels " in (
        _failure(root, _table("split,Befund", "train,i.O.", "test,n.i.O."))
    )
    message = _failure(root, _table("split,Class", "train,A", "test,B"))
    assert "the column Class holds A, B: if it labels images, rename it to label" in message
    message = _failure(root, _table("split,is_good", "train,1", "test,0"))
    assert "rename it to label and give data.normal=WORD with its word for normal" in message
    message = _failure(root, _table("split,camera", "train,1", "test,3"))
    assert "no column label, which its 1 test images need; add one with normal or the" in message


def test_columns_that_seem_to_hold_more_are_noted(root: Path) -> None:
    split = _read(root, _table("Befund,truth", "i.O.,sub/m.png", "n.i.O.,"))
    assert _kinds(split) == {"1.png": "?", "2.png": "?"}
    start = f"data.file={root / 'list.csv'}: "
    assert [note.removeprefix(start) for note in split.notes[:3]] == [
        "the column Befund holds i.O., n.i.O.: if it labels images, rename it to label",
        "if truth holds masks, rename it to mask",
        "other columns, kept as they are: Befund, truth",
    ]


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
    what = "is not a readable file in" if path == "~" else "leads outside"
    assert reason.startswith(f"{path} {what} {root}; fix it or data.root")


def test_absolute_paths_outside(root: Path) -> None:
    assert "leads outside" in _problem(root, f"{root.parent / 'outside.png'},train,,")[1]
    assert "leads outside" in _problem(root, f"{root}2/1.png,train,,")[1]


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
    message = _failure(root, "name,label\n")
    assert (
        "has no column path (it begins with name,label); its first row is to name path, " in message
    )
    assert "its first row is to name path" in _failure(root, "1.png,good\n2.png,good\n")
    assert "has no column path (it is empty)" in _failure(root, "\n \n")
    assert "lists no image; add a row for each" in _failure(root, "path,label\n,\n")
    assert "has several columns named label" in _failure(root, "path,label,Label\n1.png,0,1\n")
    assert "line 3: unexpected end of data" in _failure(root, 'path\n1.png\n"2.png\n')
