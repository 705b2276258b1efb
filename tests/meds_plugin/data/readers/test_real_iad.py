from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.data.readers.real_iad import read_real_iad
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

VIEWS = ("C1", "C2", "C3", "C4", "C5")


def _ok(category: str, number: int, view: str) -> dict[str, Any]:
    path = f"OK/S{number:04}/{category}_{number:04}_OK_{view}_20230922150815.jpg"
    return {"category": category, "anomaly_class": "OK", "image_path": path, "mask_path": None}


def _ng(category: str, number: int, view: str, kind: str = "HS") -> dict[str, Any]:
    stem = f"NG/{kind}/S{number:04}/{category}_{number:04}_NG_{kind}_{view}_20230922150815"
    return {
        "category": category,
        "anomaly_class": kind,
        "image_path": f"{stem}.jpg",
        "mask_path": f"{stem}.png",
    }


def _lists(category: str, *, noisy: bool = False) -> dict[str, Any]:
    """Return two good objects to train on, one good and one bad object to test on."""
    bad = [_ng(category, 8, view, "QS") for view in VIEWS] if noisy else []
    return {
        "meta": {"normal_class": "OK", "prefix": f"{category}/", "pre_transform": False},
        "test": [_ok(category, 3, view) for view in VIEWS] + [_ng(category, 9, v) for v in VIEWS],
        "train": [_ok(category, n, view) for n in (10, 2) for view in VIEWS] + bad,
    }


def _write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def _images(folder: Path, lists: dict[str, Any]) -> None:
    for entry in [*lists["train"], *lists["test"]]:
        for name in filter(None, (entry["image_path"], entry["mask_path"])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


# A folder name with a view in it: the reference looks for one in the whole path.
@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "Real-IAD_C1_"
    for category in ("audiojack", "toy_brick"):
        _images(root / "realiad_1024" / category, _lists(category, noisy=True))
        for variant, noisy in (("realiad_jsons", False), ("realiad_jsons_fuiad_0.4", True)):
            content = _lists(category, noisy=noisy)
            _write(root / "realiad_jsons" / variant / f"{category}.json", content)
        _write(
            root / "realiad_jsons" / "realiad_jsons_fuiad_0.0" / f"{category}.json",
            _lists(category),
        )
    return root


@pytest.fixture
def table(root: Path) -> Path:
    return root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"


def _failure(root: Path | None, categories: list[str] | None = None, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_real_iad(root, categories, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_standard_lists(root: Path) -> None:
    split = read_real_iad(root)
    assert split.categories == ["audiojack", "toy_brick"]
    assert (len(split.train), len(split.test)) == (20, 20)
    assert (split.problems, split.notes) == ([], [])
    start = "realiad_1024/audiojack/OK"
    train = [sample for sample in split.train if sample.category == "audiojack"]
    assert [(s.path, s.view) for s in train] == [
        (f"{start}/S{n:04}/audiojack_{n:04}_OK_{view}_20230922150815.jpg", view)
        for n in (2, 10)
        for view in VIEWS
    ]
    assert train[3].group == "audiojack/C4"
    assert all(s.defect is None and s.injected is None and s.mask is None for s in split.train)
    test = [sample for sample in split.test if sample.category == "toy_brick"]
    assert [(s.defect, s.view) for s in test] == [(k, v) for k in ("HS", None) for v in VIEWS]
    for sample in [*split.train, *split.test]:
        assert sample.image == root / sample.path
        mask = (root / sample.path).with_suffix(".png") if sample.is_anomaly else None
        assert sample.mask == mask


def test_noisy_lists(root: Path) -> None:
    split = read_real_iad(root, ["audiojack"], variant="realiad_jsons_fuiad_0.4")
    assert [(s.defect, s.injected) for s in split.train] == [("QS", True)] * 5 + [
        (None, False)
    ] * 10
    assert [sample.view for sample in split.train] == [*VIEWS] * 3
    assert all(
        sample.mask == (root / sample.path).with_suffix(".png") for sample in split.train[:5]
    )
    assert all(sample.injected is None for sample in split.test)
    assert split.notes == [
        "realiad_jsons_fuiad_0.4 lists 5 of 15 training images as defective: they count as injected"
    ]


def test_lists_of_the_noisy_kind_without_noise(root: Path) -> None:
    split = read_real_iad(root, variant="realiad_jsons_fuiad_0.0")
    assert [sample.injected for sample in split.train] == [False] * 20
    assert split.notes == []


def test_lists_beside_the_images(root: Path) -> None:
    expected = [sample.path for sample in read_real_iad(root).train]
    for folder in list((root / "realiad_jsons").iterdir()):
        folder.rename(root / f"moved_{folder.name}")
    (root / "realiad_jsons").rmdir()
    for folder in root.glob("moved_*"):
        folder.rename(root / folder.name.removeprefix("moved_"))
    assert [sample.path for sample in read_real_iad(root).train] == expected
    assert len(read_real_iad(root, variant="realiad_jsons_fuiad_0.4").train) == 30


def test_an_unknown_variant(root: Path) -> None:
    for variant in ("realiad_jsons_fuiad_0.9", "../realiad_jsons"):
        assert _failure(root, variant=variant) == (
            f"data.variant={variant} is not in data.root={root}; there are: "
            "realiad_jsons, realiad_jsons_fuiad_0.0, realiad_jsons_fuiad_0.4"
        )


def test_the_folder_of_images(root: Path) -> None:
    (root / "realiad_1024").rename(root / "realiad_512")
    assert read_real_iad(root).train[0].path.startswith("realiad_512/audiojack/OK/S0002/")
    _images(root / "realiad_256" / "audiojack", _lists("audiojack"))
    assert _failure(root) == (
        f"data.root={root} has images of several sizes; name one: data.images=realiad_256; "
        "there are: realiad_256, realiad_512"
    )
    split = read_real_iad(root, images="realiad_256")
    assert split.train[0].path.startswith("realiad_256/audiojack/")
    assert split.notes == [f"category toy_brick: no folder {root}/realiad_256/toy_brick: left out"]
    (root / "realiad_512").rename(root / "realiad_1024")
    assert read_real_iad(root).train[0].path.startswith("realiad_1024/")
    for name in ("realiad_raw", "..", "realiad_256/audiojack"):
        message = _failure(root, images=name)
        assert message.startswith(
            f"data.images={name} is not a folder in data.root={root}; there are:"
        )


def test_no_images(root: Path) -> None:
    (root / "realiad_1024" / "audiojack").rename(root / "audiojack")
    (root / "realiad_1024" / "toy_brick").rename(root / "toy_brick")
    assert _failure(root).endswith(
        "realiad_1024 has no folder of a category listed in realiad_jsons; check data.images"
    )
    (root / "realiad_1024").rmdir()
    assert (
        _failure(root) == f"data.root={root} has no folder of images such as realiad_1024; add one"
    )


def test_categories(root: Path) -> None:
    assert read_real_iad(root, "toy_brick").categories == ["toy_brick"]
    assert _failure(root, ["toy"]).endswith("there are: audiojack, toy_brick")
    (root / "realiad_1024" / "audiojack").rename(root / "realiad_1024" / "other")
    split = read_real_iad(root)
    assert split.categories == ["toy_brick"]
    gone = root / "realiad_1024" / "audiojack"
    assert split.notes == [
        f"category audiojack: no folder {gone}: left out",
        "category other: not listed in realiad_jsons: left out",
    ]
    assert _failure(root, ["audiojack"]).startswith(f"category audiojack: {gone} does not exist")


def test_lists_without_meta(root: Path, table: Path) -> None:
    expected = [sample.path for sample in read_real_iad(root).train]
    content = _lists("audiojack")
    content["meta"] = {}
    _write(table, content)
    assert [sample.path for sample in read_real_iad(root).train] == expected
    del content["meta"]
    _write(table, content)
    assert [sample.path for sample in read_real_iad(root).train] == expected


def test_words_for_normal(root: Path, table: Path) -> None:
    content = _lists("audiojack")
    for normal, word in (("OK", "ok"), ("i.O.", "I. O."), (None, "good"), (None, "normal_test")):
        for entry in [*content["train"], *content["test"]]:
            if entry["image_path"].startswith("OK/"):
                entry["anomaly_class"] = word
                entry["mask_path"] = "nan"
        content["meta"] = {} if normal is None else {"normal_class": normal}
        _write(table, content)
        split = read_real_iad(root, ["audiojack"])
        assert {s.defect for s in split.train} == {None}
        assert {(s.defect, s.label) for s in split.test} == {(None, word), ("HS", "HS")}
    content["train"][0]["anomaly_class"] = "OK"
    _write(table, content)
    assert _failure(root, ["audiojack"]) == (
        f"{table}: anomaly_class: OK and normal_test are different words for normal; "
        "name the one for normal in meta.normal_class"
    )


def test_the_prefix_and_the_normal_class_are_followed(root: Path, table: Path) -> None:
    (root / "realiad_1024" / "audiojack").rename(root / "realiad_1024" / "jack")
    content = _lists("audiojack")
    content["meta"] = {"prefix": "jack/", "normal_class": "HS"}
    _write(table, content)
    split = read_real_iad(root, ["audiojack"])
    assert split.train[0].path.startswith("realiad_1024/jack/OK/")
    assert {(s.category, s.defect) for s in split.test} == {
        ("audiojack", None),
        ("audiojack", "OK"),
    }


def test_a_view_comes_from_the_file_name_only(root: Path, table: Path) -> None:
    content = _lists("audiojack")
    names = {
        "C1/plain.jpg": None,
        "C2/a_C6_1.jpg": None,
        "C2/aC3_1.jpg": None,
        "C2/a_C31_1.jpg": None,
        "C2/a_C1_0001_OK_C4_1.jpg": "C4",
        "C2/a_C5.jpg": "C5",
    }
    content["train"] = [
        {"anomaly_class": "OK", "image_path": name, "mask_path": None} for name in names
    ]
    _images(root / "realiad_1024" / "audiojack", content)
    _write(table, content)
    split = read_real_iad(root, ["audiojack"])
    views = {s.path.removeprefix("realiad_1024/audiojack/"): s.view for s in split.train}
    assert views == names
    assert split.notes == [
        "category audiojack: 4 of 16 images have no view _C1_ to _C5_ in their file name"
    ]


def test_entries_that_cannot_be_used_are_problems(root: Path, table: Path) -> None:
    (root / "secret.jpg").touch()
    content = _lists("audiojack")
    good, bad = dict(content["train"][0]), dict(content["test"][-1])
    content["train"] += [
        {**good, "image_path": "OK/none_C1_.jpg"},
        {**good, "image_path": "../../secret.jpg"},
        {**good, "image_path": str(root / "secret.jpg")},
        good,
        {**good, "image_path": "OK"},
    ]
    content["test"][-1] = {**bad, "mask_path": "NG/none.png"}
    content["test"] += [{**bad, "mask_path": "../../../mask.png"}, good]
    _write(table, content)
    split = read_real_iad(root, ["audiojack"])
    base = root / "realiad_1024" / "audiojack"
    start = "realiad_1024/audiojack"
    expected = [
        (
            f"{start}/OK/none_C1_.jpg",
            f"train[10]: OK/none_C1_.jpg is not a readable file in {base}",
        ),
        (f"{start}/../../secret.jpg", f"train[11]: ../../secret.jpg leads outside {base}; fix it"),
        (f"{start}/{root}/secret.jpg", f"train[12]: {root}/secret.jpg leads outside"),
        (f"{start}/OK", "train[14]: OK is not a readable file in"),
        (f"{start}/{good['image_path']}", f"train[13]: {start}/OK/S0010/audiojack_0010_OK_C1_"),
        (f"{start}/{bad['image_path']}", "test[9]: NG/none.png is not a readable file in"),
        (f"{start}/{bad['image_path']}", "test[10]: ../../../mask.png leads outside"),
    ]
    found = {problem.reason: problem.path for problem in split.problems}
    assert len(found) == len(expected)
    for path, reason in expected:
        match = [r for r in found if r.startswith(f"audiojack.json {reason}")]
        assert len(match) == 1, reason
        assert found[match[0]] == path
        assert len(match[0].splitlines()) == 1
    assert (len(split.train), len(split.test)) == (10, 10)


def test_masks_that_are_not_listed(root: Path, table: Path) -> None:
    content = _lists("audiojack")
    del content["test"][-1]["mask_path"]
    _write(table, content)
    split = read_real_iad(root, ["audiojack"])
    assert sum(sample.mask is None for sample in split.test if sample.is_anomaly) == 1
    assert split.notes == [
        "category audiojack: 1 of 5 masks are missing: pixel metrics are skipped"
    ]
    for entry in content["test"]:
        entry["mask_path"] = ""
    _write(table, content)
    assert read_real_iad(root, ["audiojack"]).notes == [
        "category audiojack: no masks: pixel metrics are skipped"
    ]


def test_lists_of_one_part_only(root: Path, table: Path) -> None:
    _write(table, {**_lists("audiojack"), "test": []})
    split = read_real_iad(root)
    assert split.notes == ["category audiojack: no test images: no metrics for it"]
    assert len(split.test) == 10
    _write(table, {**_lists("audiojack"), "train": []})
    assert _failure(root) == (
        f"category audiojack: {table} lists no training images; leave it out of data.categories"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "the file must be an object, got []"),
        ('{"test": []}', "train must be a list, got nothing"),
        ('{"train": []}', "test must be a list, got nothing"),
        ('{"train": {}, "test": []}', "train must be a list, got {}"),
        ('{"train": [], "test": [], "meta": 3}', "meta must be an object, got 3"),
        ('{"train": [], "test": [], "meta": {"prefix": 1}}', "meta.prefix must be a text, got 1"),
        (
            '{"train": [], "test": [], "meta": {"prefix": "../x"}}',
            "meta.prefix must name a folder of images, got '../x'",
        ),
        (
            '{"train": [], "test": [], "meta": {"normal_class": null}}',
            "meta.normal_class must be a text, got nothing",
        ),
        ('{"train": ["x"], "test": []}', 'train[0] must be an object, got "x"'),
        ('{"train": [{}], "test": []}', "train[0].image_path must be a text, got nothing"),
        (
            '{"train": [{"image_path": ""}], "test": []}',
            'train[0].image_path must be a text, got ""',
        ),
        (
            '{"train": [], "test": [{"image_path": "a.jpg"}]}',
            "test[0].anomaly_class must be a text, got nothing",
        ),
        (
            '{"train": [], "test": [{"image_path": "a", "anomaly_class": "OK", "mask_path": [1]}]}',
            "test[0].mask_path must be a text, got [1]",
        ),
        (
            json.dumps({"train": ["x" * 99], "test": []}),
            f'train[0] must be an object, got "{"x" * 36}...',
        ),
    ],
)
def test_malformed_lists_name_file_and_key(
    root: Path, table: Path, content: str, says: str
) -> None:
    table.write_text(content)
    assert _failure(root).startswith(f"{table}: {says}; fix it")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"train": NaN,}'])
def test_what_is_no_json_is_told(root: Path, table: Path, content: bytes) -> None:
    table.write_bytes(content)
    assert _failure(root).startswith(f"{table} cannot be read as JSON (")


def test_hidden_files_are_passed_over(root: Path, table: Path) -> None:
    (table.parent / "._audiojack.json").write_bytes(b"\x00\x05")
    assert read_real_iad(root).categories == ["audiojack", "toy_brick"]


def test_other_layouts_are_named(tmp_path: Path) -> None:
    for name, paths, use in (
        ("mvtec", ["bottle/train/good/0.png", "bottle/test/hole/0.png"], "mvtec"),
        ("mvtec_ad_2", ["can/train/good/0.png", "can/test_public/bad/0.png"], "mvtec"),
        ("visa", ["candle/Data/Images/Normal/0.JPG"], "visa"),
        ("folder", ["a/0.png", "a/labels.json"], "folder"),
    ):
        root = tmp_path / name
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        message = _failure(root)
        assert message.startswith(
            f"data.root={root} is not laid out as real_iad (expected realiad_"
        )
        assert message.endswith(f": it looks like {name}; use data={use}")


def test_a_folder_inside_or_above_is_told(root: Path) -> None:
    assert _failure(root / "realiad_1024").endswith(f": {root} is; use data.root={root}")
    assert _failure(root.parent).endswith(f": {root} is; use data.root={root}")
    assert _failure(None).startswith(
        "data.root=DIR is missing: name the folder that holds realiad_"
    )
