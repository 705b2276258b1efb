from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.data.file_search import IMAGE_SUFFIXES
from meds_plugin.data.readers.folder import read_folder
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.data.samples import Split

NO_TEST = "no test images: no test metrics"
KINDS = " ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return _touch(
        tmp_path / "line 3",
        *("1.png", "10.png", "2.JPG", "monday/a.png", "monday/late/b.tif"),
        *("held/good/1.png", "held/scratch/1.png", "held/scratch/2.png", "held/Good/old/1.png"),
    )


def _failure(root: Path | None, categories: list[str] | None = None, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_folder(root, categories, **more)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def _roles(split: Split) -> dict[str, str]:
    """Return what every image is: train, train good, normal, or its defect."""
    train = {s.path: "train" if s.injected is None else "train good" for s in split.train}
    assert all(s.defect is None and not s.injected for s in split.train)
    assert all(s.injected is None for s in split.test)
    test = {s.path: s.defect or "normal" for s in split.test}
    assert not train.keys() & test.keys()
    assert len(train) + len(test) == len(split.train) + len(split.test)
    return train | test


def test_everything_found_is_training_data(root: Path) -> None:
    split = read_folder(root)
    assert [sample.path for sample in split.train] == [
        *("1.png", "2.JPG", "10.png", "held/Good/old/1.png", "held/good/1.png"),
        *("held/scratch/1.png", "held/scratch/2.png", "monday/a.png", "monday/late/b.tif"),
    ]
    assert set(_roles(split).values()) == {"train"}
    assert split.categories == ["line 3"]
    assert split.train[0].image == root / "1.png"
    unread = (
        "names of folders are not read as labels: Good: 1, good: 1; name the folders in "
        "data.normal and data.anomalous to tell their images apart"
    )
    assert (split.test, split.problems, split.notes) == ([], [], [unread, NO_TEST])
    assert read_folder(root / "monday").notes == [NO_TEST]


def test_a_folder_of_a_single_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "one", "x.png")
    monkeypatch.chdir(tmp_path / "one")
    split = read_folder(".")
    assert [(s.path, s.category) for s in split.train] == [("x.png", "one")]


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = ["a b.png", 'it\'s "q".png', "Öl/日本.png", "line\nbreak/x.png", " .png", "#1,;.png"]
    split = read_folder(_touch(tmp_path / "x", *names))
    assert {s.path for s in split.train} == set(names)
    assert all(isinstance(s.image, Path) and s.image.is_file() for s in split.train)


def test_other_files_are_counted(root: Path) -> None:
    _touch(root, "notes.txt", "monday/x.svg", "monday/y.SVG", ".hidden.png", ".git/x.png", "empty")
    (root / "folder.png").mkdir()
    (root / "none").mkdir()
    split = read_folder(root)
    assert len(split.train) == 9
    first = "ignored 4 other files, first empty (.svg: 2, no suffix: 1, .txt: 1)"
    assert (split.notes[0], split.notes[-1]) == (first, NO_TEST)
    assert read_folder(root / "monday").notes[0] == "ignored 2 other files, first x.svg (.svg: 2)"
    _touch(tmp := root.parent / "single", "a.png", "a\nb.txt")
    assert read_folder(tmp).notes[0] == "ignored 1 other file, first 'a\\nb.txt' (.txt: 1)"


def test_links(root: Path, tmp_path: Path) -> None:
    (root / "monday" / "up").symlink_to(root, target_is_directory=True)
    (root / "late").symlink_to(root / "monday" / "late", target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "lost.png").symlink_to(tmp_path / "nowhere")
    split = read_folder(root)
    names = [s.path for s in split.train]
    assert len(names) == len(set(names)) == 12
    assert {"late/b.tif", "loop.png", "lost.png"} < set(names)  # the check of all files names them
    assert split.notes[0] == "ignored links to folders above them: 1, first monday/up"
    (problem,) = split.problems
    assert problem.path == "self"
    assert problem.reason == f"{root / 'self'} is a link that leads back to itself: fix it"


def test_a_link_to_the_whole_disk_is_not_followed(tmp_path: Path) -> None:
    _touch(tmp_path / "photos", "a.png")
    _touch(tmp_path / "beside", "b.png")
    (tmp_path / "photos" / "up").symlink_to("..")
    (tmp_path / "photos" / "all").symlink_to("/")
    split = read_folder(tmp_path / "photos")
    assert [sample.path for sample in split.train] == ["a.png"]
    assert split.notes[0] == "ignored links to folders above them: 2, first all"


def test_a_folder_that_may_not_be_listed_is_one_of_the_problems(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "late":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    (root / "mounted").symlink_to("/nowhere/else")
    monkeypatch.setattr(Path, "iterdir", iterdir)
    split = read_folder(root)
    assert {problem.path for problem in split.problems} == {"monday/late", "mounted"}
    reasons = " ".join(problem.reason for problem in split.problems)
    assert "late cannot be listed (Permission denied); check its permissions" in reasons
    assert "mounted is a link to /nowhere/else, which does not exist: fix it" in reasons
    assert not any(sample.path.startswith("monday/late") for sample in split.train)
    assert "cannot be listed" in _failure(root / "monday" / "late")
    assert "cannot be listed" in _failure(root, masks="monday", test="held")


def test_nothing_found(tmp_path: Path) -> None:
    assert _failure(tmp_path) == (
        f"data.root={tmp_path} holds no image ({KINDS}): "
        "there are no files; name a folder with images"
    )
    _touch(tmp_path, "a.heic", "sub/b.heic", ".c.png")
    message = _failure(tmp_path)
    assert "webp): ignored 2 other files, first a.heic (.heic: 2); name" in message


def test_wrong_roots(root: Path) -> None:
    assert _failure(None).startswith("data.root=DIR is missing")
    assert "does not exist" in _failure(root / "none")
    assert "is a file, not a folder" in _failure(root / "1.png")
    assert "does not exist" in _failure(root / ("x" * 300))


@pytest.mark.parametrize("test", ["held", "held/", "./held", ["held"], "hel?", "held/*", "**/held"])
def test_test_images_are_told_by_their_folders(root: Path, test: str | list[str]) -> None:
    split = read_folder(root, test=test)
    assert _roles(split) == {
        **dict.fromkeys(("1.png", "10.png", "2.JPG", "monday/a.png", "monday/late/b.tif"), "train"),
        "held/good/1.png": "normal",
        "held/Good/old/1.png": "normal",
        "held/scratch/1.png": "scratch",
        "held/scratch/2.png": "scratch",
    }
    assert [s.label for s in split.test] == ["Good", "good", "scratch", "scratch"]
    assert split.notes == ["category line 3: no data.masks: pixel metrics are skipped"]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        *[("OK", "NG"), ("i.O.", "n.i.O."), ("PASS", "FAIL"), ("0", "1"), ("none", "crack")],
        *[("normal_test", "anomaly"), ("Defect-free", "dent"), ("gut", "schlecht")],
    ],
)
def test_words_for_normal(tmp_path: Path, good: str, bad: str) -> None:
    _touch(tmp_path, "a.png", f"held/{good}/0/1.png", f"held/{bad}/0/2.png", f"held/{bad}/n/3.png")
    split = read_folder(tmp_path, test="held")
    assert {s.path.split("/")[1]: s.defect for s in split.test} == {good: None, bad: bad}
    assert {s.path.split("/")[1]: s.label for s in split.test} == {good: good, bad: bad}


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (("good", "OK", "NG"), "OK and good are different words for normal"),
        (("normal", "nomal", "dent"), "nomal (beside normal) may mean normal or defective"),
        (("crack", "no_crack"), "no_crack may mean normal or defective"),
        (("good", "dent", "unknown"), "unknown says nothing"),
        (("a", "b"), "none of a: 1, b: 1 is a usual word for normal"),
        (("x/good_2", "x/dent"), "good_2 may mean normal or defective"),
    ],
)
def test_doubtful_folders_are_refused(tmp_path: Path, folders: tuple[str, ...], why: str) -> None:
    _touch(tmp_path / "nut", "a.png", *(f"held/{name}/1.png" for name in folders))
    assert _failure(tmp_path / "nut", test="held") == (
        f"category nut: test images are labelled by the names of their folders, but {why}; rename "
        "the folders, or name them in data.normal and data.anomalous"
    )
    named = [f"held/{name}" for name in folders]
    split = read_folder(tmp_path / "nut", test="held", normal=named[0], anomalous=named[1:])
    assert sum(sample.defect is None for sample in split.test) == 1


def test_kinds_with_masks_are_defects(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "held/a/1.png", "held/b/1.png", "truth/a/1.png", "truth/b/1.png")
    assert [s.defect for s in read_folder(tmp_path, test="held", masks="truth").test] == ["a", "b"]


def test_each_category_has_its_own_words(tmp_path: Path) -> None:
    _touch(tmp_path, "nut/a.png", "nut/test/good/1.png", "bolt/b.png", "bolt/test/OK/2.png")
    split = read_folder(tmp_path, by_directory=True, test="*/test")
    assert [s.defect for s in split.test] == [None, None]


def test_what_lies_below_may_be_called_anything(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "t/x/good/1.png", "t/scratch/fine/2.png", "t/dent/0/n/3.png")
    assert _roles(read_folder(tmp_path, test="t")) == {
        "a.png": "train",
        "t/x/good/1.png": "normal",
        "t/scratch/fine/2.png": "scratch",
        "t/dent/0/n/3.png": "dent",
    }
    _touch(tmp_path, "t/NG/ok/4.png")
    assert "the folders ok and NG contradict each other about t/NG/ok/4.png; move it, or give" in (
        _failure(tmp_path, test="t")
    )


def test_labels_that_are_not_read_are_told(tmp_path: Path) -> None:
    _touch(tmp_path, "OK/1.png", "OK/2.png", "NG/3.png")
    split = read_folder(tmp_path)
    assert set(_roles(split).values()) == {"train"}
    assert split.notes[0] == (
        "names of folders are not read as labels: OK: 2, NG: 1; name the folders in data.normal "
        "and data.anomalous to tell their images apart"
    )
    split = read_folder(tmp_path, normal="OK", anomalous="NG")
    assert not any("not read as labels" in note for note in split.notes)
    _touch(tmp_path, "held/good/4.png", "held/dent/5.png")
    notes = read_folder(tmp_path, test="held", normal="OK").notes
    assert any("not read as labels: NG: 1" in note for note in notes)


def test_test_images_of_unknown_kind(root: Path) -> None:
    message = _failure(root, test="monday")
    assert "nothing says whether monday/a.png in data.test=monday is normal" in message
    assert "give data.normal and data.anomalous" in message
    assert "1.png in data.test=*.png is normal" in _failure(root, test="*.png")
    split = read_folder(root, test="monday", normal="monday/a.png", anomalous="**/late")
    assert _roles(split)["monday/a.png"] == "normal"
    assert _roles(split)["monday/late/b.tif"] == "late"


def test_normal_and_anomalous_without_test(root: Path) -> None:
    split = read_folder(root, normal=["held/good", "held/Good"], anomalous="held/scratch")
    roles = _roles(split)
    assert [n for n in roles if roles[n] == "train good"] == [
        "held/Good/old/1.png",
        "held/good/1.png",
    ]
    assert [n for n in roles if roles[n] == "scratch"] == [
        "held/scratch/1.png",
        "held/scratch/2.png",
    ]
    assert sum(role == "train" for role in roles.values()) == 5
    assert [s.label for s in split.train if s.label] == [
        "data.normal=held/Good",
        "data.normal=held/good",
    ]
    assert "category line 3: no normal test images: image metrics are skipped" in split.notes


def test_known_defects_outside_test_are_not_trained_on(root: Path) -> None:
    split = read_folder(root, test="held", anomalous="monday/late", normal="*.png")
    roles = _roles(split)
    assert roles["monday/late/b.tif"] == "late"
    assert roles["1.png"] == "train good"
    assert roles["2.JPG"] == roles["monday/a.png"] == "train"
    assert roles["held/Good/old/1.png"] == "normal"


def test_normal_goes_before_the_names_of_folders(root: Path) -> None:
    roles = _roles(read_folder(root, test="held", normal="held/scratch", anomalous="held/good"))
    assert roles["held/scratch/1.png"] == "normal"
    assert roles["held/good/1.png"] == "good"


def test_names_of_defects(tmp_path: Path) -> None:
    _touch(tmp_path, "x.png", "y_ng.png", "ng/1.png", "ng/dent/deep/2.png", "a/b/3_ng.png")
    split = read_folder(tmp_path, anomalous=["ng", "**/*_ng.png"])
    assert _roles(split) == {
        "x.png": "train",
        "y_ng.png": "anomaly",
        "ng/1.png": "ng",
        "ng/dent/deep/2.png": "dent",
        "a/b/3_ng.png": "b",
    }


def test_contradictions(root: Path) -> None:
    message = _failure(root, normal=["*.png", "held"], anomalous=["*/scratch"])
    assert message == (
        "held/scratch/1.png is in data.normal=held and in data.anomalous=*/scratch; "
        "name each image in one of them only"
    )


@pytest.mark.parametrize("key", ["test", "normal", "anomalous", "masks"])
def test_folders_and_patterns_without_images(root: Path, key: str) -> None:
    (root / "nothing").mkdir()
    assert f"data.{key}=tset" in _failure(root, **dict[str, Any]({key: "tset"}))
    assert "holds data.root" in _failure(root, **dict[str, Any]({key: ".."}))
    if key != "masks":
        for text in ("nothing", "*/x*"):
            message = _failure(root, **{key: ["held", text]})
            assert f"data.{key}={text} has no image in data.root={root}" in message


def test_all_are_test_images(root: Path) -> None:
    message = _failure(root, test="held", anomalous=["monday", "*.*"])
    assert "category line 3 has no training images, all 9 are test images; add some" in message


def test_masks_mirror_the_test_images(root: Path) -> None:
    _touch(root, "truth/good/1.png", "truth/scratch/1_mask.bmp", "truth/x.txt")
    for masks in ("truth", root / "truth"):
        split = read_folder(root, test="held", masks=masks)
        assert {s.path: s.mask for s in split.test} == {
            "held/good/1.png": None,
            "held/Good/old/1.png": None,
            "held/scratch/2.png": None,
            "held/scratch/1.png": root / "truth/scratch/1_mask.bmp",
        }
        assert len(split.train) == 5  # no mask is trained on
        assert split.notes == [
            "category line 3: 1 of 2 masks are missing: pixel metrics are skipped"
        ]


def test_masks_below_the_root_path_inside_test_and_outside(root: Path, tmp_path: Path) -> None:
    _touch(tmp_path, "truth/held/scratch/1.png", "truth/held/scratch/2.tif", "truth/lost.png")
    _touch(root, "held/truth/scratch/1.png")
    split = read_folder(root, test="held", masks=tmp_path / "truth", anomalous="held/truth")
    assert {s.path: s.mask for s in split.test if s.defect} == {
        "held/scratch/1.png": tmp_path / "truth/held/scratch/1.png",
        "held/scratch/2.png": tmp_path / "truth/held/scratch/2.tif",
        "held/truth/scratch/1.png": None,
    }
    (note,) = (note for note in split.notes if "no test image: 1 of 3, first " in note)
    assert note.endswith("relative to data.test or to data.root")
    split = read_folder(root, test="held", masks="held/truth")
    assert "held/truth/scratch/1.png" not in _roles(split)
    assert {s.path for s in split.test if s.mask} == {"held/scratch/1.png"}


def test_masks_of_anomalous_images_without_test(root: Path) -> None:
    _touch(root, "truth/2.png")
    split = read_folder(root, anomalous="held/scratch", masks="truth")
    assert [s.mask for s in split.test] == [None, root / "truth/2.png"]


def test_unclear_masks(root: Path) -> None:
    _touch(root, "truth/scratch/1.png", "truth/held/scratch/1_mask.png")
    message = _failure(root, test="held", masks="truth")
    assert "both fit held/scratch/1.png; remove or rename one of them" in message
    (root / "truth/held/scratch/1_mask.png").unlink()
    _touch(root, "held/scratch/1.bmp")
    message = _failure(root, test="held", masks="truth")
    assert "fits both held/scratch/1.bmp and held/scratch/1.png; rename one" in message


def test_wrong_mask_folders(root: Path) -> None:
    for masks in ("none", "1.png", "*/truth", "x" * 300, ""):
        message = _failure(root, test="held", masks=masks)
        assert f"data.masks={masks} is not a folder; name one relative to data.root" in message
    assert "data.masks=. is data.root itself" in _failure(root, test="held", masks=".")
    assert "data.test=held has no image" in _failure(root, test="held", masks="held")


def test_folders_outside_the_root(root: Path, tmp_path: Path) -> None:
    away = _touch(tmp_path / "away", "good/1.png", "dent/2.png", "dent/n.txt", "truth/dent/2.png")
    split = read_folder(root / "monday", test=away, masks=away / "truth")
    assert _roles(split) == {
        "a.png": "train",
        "late/b.tif": "train",
        "../../away/good/1.png": "normal",
        "../../away/dent/2.png": "dent",
    }
    assert {s.image for s in split.test} == {away / "good/1.png", away / "dent/2.png"}
    assert [s.mask for s in split.test if s.defect] == [away / "truth/dent/2.png"]
    assert split.categories == ["monday"]
    assert split.notes[0].startswith("ignored 1 other file, first ../../away/dent/n.txt")


def test_categories_by_directory(tmp_path: Path) -> None:
    _touch(tmp_path, "nut/a.png", "nut/x/b.png", "bolt/c.png", "bolt/ng/d.png", "empty/n.txt")
    split = read_folder(tmp_path, by_directory=True, anomalous="*/ng")
    assert {s.path: s.category for s in [*split.train, *split.test]} == {
        "nut/a.png": "nut",
        "nut/x/b.png": "nut",
        "bolt/c.png": "bolt",
        "bolt/ng/d.png": "bolt",
    }
    assert [s.category for s in split.train] == ["bolt", "nut", "nut"]
    assert split.notes[1:] == [
        "category bolt: no data.masks: pixel metrics are skipped",
        "category bolt: no normal test images: image metrics are skipped",
        "category nut: no test images: no metrics for it",
    ]
    chosen = read_folder(tmp_path, ["nut"], by_directory=True, anomalous="*/ng")
    assert (chosen.categories, chosen.test) == (["nut"], [])
    message = _failure(tmp_path, ["nit"], by_directory=True)
    assert "data.categories=[nit]: not in" in message
    assert "there are: bolt, nut" in message


def test_categories_need_by_directory(root: Path) -> None:
    assert "data.categories needs data.by_directory=true" in _failure(root, ["monday"])


def test_by_directory_is_no_name(root: Path) -> None:
    message = _failure(root, by_directory="held")
    assert message == "data.by_directory must be true or false, got 'held'"


def test_images_in_no_category(root: Path) -> None:
    message = _failure(root, by_directory=True)
    assert message == (
        "1.png lies in no folder of a category, as data.by_directory=true needs; "
        "move it into one, or give data.by_directory=false"
    )


@pytest.mark.parametrize("place", ["test", "../test"])
def test_test_folder_beside_the_categories(tmp_path: Path, place: str) -> None:
    root = _touch(tmp_path / "r", "nut/a.png", "bolt/b.png")
    _touch(root / place, "nut/good/1.png", "nut/dent/2.png", "bolt/Normal/3.png", "bolt/cut/4.png")
    _touch(root / "truth", "nut/dent/2.png")
    split = read_folder(root, by_directory=True, test=place, masks="truth")
    assert {(s.path, s.category, s.defect) for s in split.test} == {
        (f"{place}/nut/good/1.png", "nut", None),
        (f"{place}/nut/dent/2.png", "nut", "dent"),
        (f"{place}/bolt/Normal/3.png", "bolt", None),
        (f"{place}/bolt/cut/4.png", "bolt", "cut"),
    }
    assert [s.path for s in split.test if s.mask] == [f"{place}/nut/dent/2.png"]
    assert split.categories == ["bolt", "nut"]


def test_test_folders_in_the_categories(tmp_path: Path) -> None:
    _touch(tmp_path, "nut/a.png", "nut/test/good/1.png", "nut/test/dent/2.png", "bolt/b.png")
    split = read_folder(tmp_path, by_directory=True, test="*/test")
    assert [(s.category, s.defect) for s in split.test] == [("nut", "dent"), ("nut", None)]


def test_known_good_categories_stay_categories(tmp_path: Path) -> None:
    _touch(tmp_path, "nut/a.png", "bolt/b.png")
    split = read_folder(tmp_path, by_directory=True, normal="nut")
    assert [(s.category, s.injected) for s in split.train] == [("bolt", None), ("nut", False)]


def test_a_category_of_test_images_only(tmp_path: Path) -> None:
    _touch(tmp_path, "nut/a.png", "bolt/ng/b.png")
    message = _failure(tmp_path, by_directory=True, anomalous="*/ng")
    assert "category bolt has no training images, all 1 are test images" in message
    assert "data.categories=" in message


@pytest.mark.parametrize(
    ("files", "layout", "use"),
    [
        (("train/good/1.png", "test/hole/2.png"), "mvtec", "mvtec"),
        (("bottle/train/good/1.png", "bottle/test/hole/2.png"), "mvtec", "mvtec"),
        (("can/train/good/1.png", "can/test_public/bad/2.png"), "mvtec_ad_2", "mvtec"),
        (("pcb1/Data/Images/Normal/1.JPG", "pcb1/Data/Masks/Anomaly/2.png"), "visa", "visa"),
        (("realiad_1024/usb/OK/1.jpg", "realiad_jsons/x/usb.json"), "real_iad", "real_iad"),
    ],
)
def test_layouts_of_the_field_are_noticed(
    tmp_path: Path, files: tuple[str, str], layout: str, use: str
) -> None:
    _touch(tmp_path, *files)
    assert (
        f"data.root={tmp_path} looks like {layout}; use data={use}, "
        "which tells its test images and masks apart"
    ) in read_folder(tmp_path).notes


def test_a_layout_that_is_taken_apart_is_not_remarked_on(tmp_path: Path) -> None:
    _touch(tmp_path, "train/good/1.png", "test/hole/2.png")
    split = read_folder(tmp_path, test="**/test")
    assert not any("looks like" in note for note in split.notes)


def test_numbers_and_lists_from_the_command_line(tmp_path: Path) -> None:
    _touch(tmp_path, "2024/good/1.png", "a.png")
    for test in (2024, [2024]):
        assert [s.path for s in read_folder(tmp_path, test=test).test] == ["2024/good/1.png"]  # type: ignore[arg-type]
