from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.visa import read_visa
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.samples import Sample

HEADER = "object,split,label,image,mask"
# Shuffled, as the authors' list.
ROWS = [
    "{0},train,normal,{0}/Data/Images/Normal/0010.JPG,",
    "{0},test,anomaly,{0}/Data/Images/Anomaly/010.JPG,{0}/Data/Masks/Anomaly/010.png",
    "{0},train,normal,{0}/Data/Images/Normal/0002.JPG,",
    "{0},test,normal,{0}/Data/Images/Normal/0001.JPG,",
    "{0},test,anomaly,{0}/Data/Images/Anomaly/002.JPG,{0}/Data/Masks/Anomaly/002.png",
    "{0},train,normal,{0}/Data/Images/Normal/0030.JPG,",
]
CATEGORIES = ("candle", "pcb1")


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _write(root: Path, *rows: str, name: str = "1cls.csv", header: str = HEADER) -> Path:
    table = root / "split_csv" / name
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join((header, *rows)) + "\n")
    return table


@pytest.fixture
def original(tmp_path: Path) -> Path:
    root = tmp_path / "VisA"
    rows = [row.format(name) for row in ROWS for name in CATEGORIES]
    table = _write(root, *rows)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            _touch(root, row["image"], *([row["mask"]] if row["mask"] else []))
    _touch(root, "LICENSE-DATASET", "candle/image_anno.csv")
    return root


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    root = tmp_path / "VisA_pytorch"
    for name in CATEGORIES:
        _touch(
            root / "1cls" / name,
            *(f"train/good/{n}.JPG" for n in ("0010", "0002", "0030")),
            "test/good/0001.JPG",
            *(f"test/bad/{n}.JPG" for n in ("010", "002")),
            *(f"ground_truth/bad/{n}.png" for n in ("010", "002")),
        )
        (root / "1cls" / name / "ground_truth" / "good").mkdir()
    return root


def _failure(
    root: Path | None, categories: list[str] | None = None, split: str | None = None
) -> str:
    with pytest.raises(UserError) as caught:
        read_visa(root, categories, split=split)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def _seen(samples: list[Sample]) -> list[tuple[str, str | None]]:
    return [(sample.extra["converted"], sample.defect) for sample in samples]


def test_original(original: Path) -> None:
    split = read_visa(original)
    assert split.categories == ["candle", "pcb1"]
    assert [(s.path, s.defect) for s in split.train if s.category == "candle"] == [
        ("candle/Data/Images/Normal/0002.JPG", None),
        ("candle/Data/Images/Normal/0010.JPG", None),
        ("candle/Data/Images/Normal/0030.JPG", None),
    ]
    masks = original / "pcb1" / "Data" / "Masks" / "Anomaly"
    assert [(s.path, s.defect, s.mask) for s in split.test if s.category == "pcb1"] == [
        ("pcb1/Data/Images/Anomaly/002.JPG", "bad", masks / "002.png"),
        ("pcb1/Data/Images/Anomaly/010.JPG", "bad", masks / "010.png"),
        ("pcb1/Data/Images/Normal/0001.JPG", None, None),
    ]
    everything = [*split.train, *split.test]
    assert len(everything) == 12
    assert all(sample.image == original / sample.path for sample in everything)
    assert all(sample.injected is None for sample in everything)
    assert (split.problems, split.notes) == ([], [])


def test_both_layouts_give_the_same_images_in_the_same_order(
    original: Path, converted: Path
) -> None:
    one, other = read_visa(original), read_visa(converted)
    assert _seen(one.train) == _seen(other.train)
    assert _seen(one.test) == _seen(other.test)
    assert one.train[0].extra == {"converted": "candle/train/good/0002.JPG"}
    assert one.test[0].extra == {"converted": "candle/test/bad/002.JPG"}


def test_converted(converted: Path) -> None:
    below = read_visa(converted)
    assert below.train[0].path == "1cls/candle/train/good/0002.JPG"
    split = read_visa(converted / "1cls")
    assert Counter((s.category, s.defect) for s in split.train) == {
        ("candle", None): 3,
        ("pcb1", None): 3,
    }
    assert [(s.path, s.defect) for s in split.test if s.category == "candle"] == [
        ("candle/test/bad/002.JPG", "bad"),
        ("candle/test/bad/010.JPG", "bad"),
        ("candle/test/good/0001.JPG", None),
    ]
    assert all(s.path == s.extra["converted"] for s in [*split.train, *split.test])
    truth = converted / "1cls" / "candle" / "ground_truth" / "bad"
    assert [s.mask for s in split.test[:3]] == [truth / "002.png", truth / "010.png", None]
    assert (split.problems, split.notes) == ([], [])
    single = read_visa(converted / "1cls" / "pcb1")
    assert single.train[0].path == "train/good/0002.JPG"
    assert single.train[0].extra == {"converted": "pcb1/train/good/0002.JPG"}


@pytest.mark.parametrize(
    ("normal", "anomaly"), [("Normal", "Anomaly"), ("0", "1"), ("good", "bad"), ("OK", "NG")]
)
def test_other_words_in_the_table(original: Path, normal: str, anomaly: str) -> None:
    expected = read_visa(original)
    table = original / "split_csv" / "1cls.csv"
    text = table.read_text().replace(",anomaly,", f",{anomaly},").replace(",normal,", f",{normal},")
    table.write_text(text.replace(",train,", ",Train,").replace(",\n", ",nan\n"))
    split = read_visa(original)
    for one, other in ((split.train, expected.train), (split.test, expected.test)):
        assert _seen(one) == _seen(other)
        assert [s.mask for s in one] == [s.mask for s in other]
    assert {(s.defect, s.label) for s in split.test} == {(None, normal), ("bad", anomaly)}
    assert split.problems == []


def test_other_names_of_folders(converted: Path) -> None:
    expected = read_visa(converted)
    for name in CATEGORIES:
        folder = converted / "1cls" / name
        (folder / "train" / "good").rename(folder / "train" / "Good")
        (folder / "test" / "good").rename(folder / "test" / "OK")
        (folder / "test" / "bad").rename(folder / "test" / "NG")
        (folder / "ground_truth" / "bad").rename(folder / "ground_truth" / "NG")
        (folder / "train").rename(folder / "Train")
    split = read_visa(converted)
    assert [s.extra for s in split.train] == [s.extra for s in expected.train]
    assert {s.extra["converted"] for s in split.test} == {
        s.extra["converted"] for s in expected.test
    }
    assert {(s.defect, s.label) for s in split.test} == {(None, "OK"), ("NG", "NG")}


def test_chosen_categories(original: Path, converted: Path) -> None:
    for root in (original, converted):
        assert read_visa(root, ["pcb1"]).categories == ["pcb1"]
        assert read_visa(root, "pcb1").notes == []
        message = _failure(root, ["pcb2"])
        assert message.endswith(f"not in data.root={root}; there are: candle, pcb1")


def test_another_split(original: Path) -> None:
    rows = ["candle,{},anomaly,candle/Data/Images/Anomaly/{}.JPG,candle/Data/Masks/Anomaly/{}.png"]
    _write(
        original,
        ROWS[0].format("candle"),
        rows[0].format("train", "002", "002"),
        rows[0].format("test", "010", "010"),
        name="2cls_fewshot.csv",
    )
    for name in ("2cls_fewshot", "2cls_fewshot.csv"):
        split = read_visa(original, ["candle"], split=name)
        assert [(s.extra["converted"], s.defect, s.injected) for s in split.train] == [
            ("candle/train/bad/002.JPG", "bad", True),
            ("candle/train/good/0010.JPG", None, False),
        ]
        assert _seen(split.test) == [("candle/test/bad/010.JPG", "bad")]
        assert split.notes == [
            "2cls_fewshot.csv lists 1 of 2 training images as defective: they count as injected"
        ]
    assert read_visa(original, split="1cls.csv").categories == ["candle", "pcb1"]
    for name in ("2cls_highshot", "../split_csv/1cls"):
        assert _failure(original, split=name) == (
            f"data.split={name} is not in {original / 'split_csv'}; "
            "there are: 1cls.csv, 2cls_fewshot.csv"
        )


def test_a_converted_tree_has_no_other_split(converted: Path) -> None:
    assert len(read_visa(converted, split="1cls").train) == 6
    message = _failure(converted, split="2cls_fewshot")
    assert message.startswith("data.split=2cls_fewshot needs VisA's original download")


def test_the_split_is_missing(original: Path) -> None:
    (original / "split_csv" / "1cls.csv").unlink()
    message = _failure(original)
    assert message.startswith(
        f"{original / 'split_csv' / '1cls.csv'} does not exist; get split_csv"
    )


def test_rows_that_cannot_be_used_are_problems(original: Path, tmp_path: Path) -> None:
    _touch(tmp_path, "out.JPG")
    rows = {
        "candle,train,normal,candle/Data/Images/Normal/0099.JPG,": (
            "candle/Data/Images/Normal/0099.JPG",
            f"candle/Data/Images/Normal/0099.JPG is not a readable file in {original}; fix it or",
        ),
        "candle,train,normal,../out.JPG,": (
            "../out.JPG",
            f"../out.JPG leads outside {original}",
        ),
        f"candle,train,normal,{tmp_path}/out.JPG,": (f"{tmp_path}/out.JPG", "leads outside"),
        "candle,train,normal,candle/Data/Images/Normal/0001.JPG,": None,  # of the test set too
        "candle,test,normal,candle//Data/Images/Normal/0001.JPG,": (
            "candle/Data/Images/Normal/0001.JPG",
            "candle/Data/Images/Normal/0001.JPG is listed a second time",
        ),
        "candle,test,anomaly,candle/Data/Images/Anomaly/002.JPG,candle/x.png": (
            "candle/Data/Images/Anomaly/002.JPG",
            "candle/x.png is not a readable file",
        ),
        "candle,val,normal,candle/Data/Images/Normal/0002.JPG,": (
            "candle/Data/Images/Normal/0002.JPG",
            "split is 'val', not train or test",
        ),
        "candle,test,odd,candle/Data/Images/Normal/0002.JPG,": (
            "candle/Data/Images/Normal/0002.JPG",
            "label is 'odd', not normal or anomaly",
        ),
        "candle,test": ("1cls.csv row 14", "label is '', not normal or anomaly"),
        "../candle,train,normal,candle/Data/Images/Normal/0002.JPG,": (
            "candle/Data/Images/Normal/0002.JPG",
            "'../candle' is not a category",
        ),
        "pcb1,train,normal,pcb1/none.JPG,": None,  # of a category that is not asked for
    }
    table = original / "split_csv" / "1cls.csv"
    _write(original, *(row.format("candle") for row in ROWS[:4]), *rows)
    split = read_visa(original, ["candle"])
    expected = {
        f"{table.name} row {number}": problem
        for number, problem in enumerate(rows.values(), start=6)
        if problem
    }
    assert len(split.problems) == len(expected)
    for problem in split.problems:
        where, _, reason = problem.reason.partition(": ")
        path, start = expected[where]
        assert problem.path == path
        assert start in reason
        assert len(problem.reason.splitlines()) == 1
    assert [sample.path[-8:] for sample in split.train] == ["0001.JPG", "0002.JPG", "0010.JPG"]
    assert [sample.path[-8:] for sample in split.test] == ["/010.JPG", "0001.JPG"]


def test_names_with_line_breaks_stay_in_one_line(original: Path) -> None:
    _write(original, *(row.format("candle") for row in ROWS), 'candle,test,normal,"a\nb.JPG",')
    split = read_visa(original, ["candle"])
    assert [problem.path for problem in split.problems] == ["a\nb.JPG"]
    assert len(split.problems[0].reason.splitlines()) == 1


def test_what_is_missing_is_noted(original: Path) -> None:
    (original / "candle" / "Data" / "Masks").rename(original / "candle" / "Data" / "elsewhere")
    (original / "pcb1" / "Data" / "Images").rename(original / "pcb1" / "Data" / "none")
    _touch(original, "own/Data/Images/Normal/0.JPG")
    split = read_visa(original)
    assert split.categories == ["candle"]
    assert [sample.mask for sample in split.test] == [None] * 3
    assert split.notes == [
        "category candle: no masks: pixel metrics are skipped",
        "category pcb1: no pcb1/Data/Images: left out",
        "category own: not in 1cls.csv: left out",
    ]
    assert split.problems == []
    assert "there are: candle" in _failure(original, ["pcb1"])


def test_a_category_without_test_images(original: Path) -> None:
    rows = [row.format("candle") for row in ROWS if ",train," in row]
    _write(original, *rows, *(row.format("pcb1") for row in ROWS))
    split = read_visa(original)
    assert split.notes == ["category candle: no test images: no metrics for it"]
    assert (len(split.train), len(split.test)) == (6, 3)


def test_a_category_without_training_images(original: Path) -> None:
    table = _write(original, *(row.format("candle") for row in ROWS if ",test," in row))
    assert _failure(original) == (
        f"category candle: {table} lists no training images; leave it out of data.categories"
    )


def test_tables_that_cannot_be_read(original: Path) -> None:
    table = _write(original, "candle,train", header="object,split,label,image")
    assert _failure(original) == (
        f"data.root={table} has no column mask (it begins with object,split,label,image); "
        "get it from VisA's original download"
    )
    table.write_bytes(b"")
    assert "has no column object, split, label, image, mask (it is empty)" in _failure(original)
    table.write_bytes(HEADER.encode() + b"\ncandle,train,normal,\xff\xfe.JPG,\n")
    assert f"data.root={table} is not text in UTF-8" in _failure(original)
    table.write_bytes(f"{HEADER}\n{'x' * 200_000},a,b,c,d\n".encode())
    assert f"data.root={table}, line 2: field larger" in _failure(original)
    _write(original, *(row.format("pcb9") for row in ROWS))
    assert _failure(original).startswith(
        f"{table} lists no category of data.root={original}: candle"
    )
    table.unlink()
    table.mkdir()
    assert f"data.root={table} cannot be read (Is a directory)" in _failure(original)


def test_a_table_with_a_byte_order_mark(original: Path) -> None:
    table = original / "split_csv" / "1cls.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    split = read_visa(original)
    assert (len(split.train), len(split.test), split.problems) == (6, 6, [])


def test_other_layouts_are_named(tmp_path: Path) -> None:
    for name, paths, use in (
        ("mvtec", ["bottle/train/good/0.png", "bottle/test/hole/0.png"], "mvtec"),
        ("mvtec_ad_2", ["can/train/good/0.png", "can/test_public/bad/0.png"], "mvtec"),
        ("real_iad", ["realiad_1024/mint/0.jpg", "realiad_jsons/mint.json"], "real_iad"),
        ("folder", ["a/0.png"], "folder"),
    ):
        root = tmp_path / name
        _touch(root, *paths)
        message = _failure(root)
        assert message.startswith(
            f"data.root={root} is not laid out as visa (expected split_csv/1c"
        )
        assert message.endswith(f": it looks like {name}; use data={use}")


def test_the_root_is_missing(tmp_path: Path) -> None:
    assert _failure(None).startswith("data.root=DIR is missing: name the folder that holds split_")
    assert "does not exist; name the folder" in _failure(tmp_path / "none")
