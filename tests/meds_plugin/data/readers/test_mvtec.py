from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.utils.errors import UserError
from tests.conftest import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator

PHOTOS = SHARED / "data" / "photo_textures"


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for category in ("bottle", "cable"):
        _touch(
            root / category,
            *(f"train/good/{n}.png" for n in (10, 9, "a")),
            "test/good/0.png",
            *(f"test/hole/{n}.png" for n in (2, 10, 1)),
            *(f"ground_truth/hole/{n}_mask.png" for n in (1, 2, 10)),
        )
    _touch(root, "license.txt", "notes/read.txt", ".hidden/train/good/0.png")
    return root


def _failure(root: Path | str | None, categories: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_mvtec(root, categories)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_photo_textures() -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"the photographs are not here: {PHOTOS}")
    split = read_mvtec(PHOTOS)
    names = ["brick", "grass", "gravel"]
    assert split.categories == names
    assert Counter(sample.category for sample in split.train) == dict.fromkeys(names, 60)
    defects = Counter((sample.category, sample.defect) for sample in split.test)
    kinds = {None: 20, "foreign": 10, "scratch": 10, "stain": 10}
    assert defects == {(name, kind): n for name in names for kind, n in kinds.items()}
    assert all((sample.mask is not None) == sample.is_anomaly for sample in split.test)
    assert split.train[0].path == "brick/train/good/000.png"


def test_order_paths_and_masks(tree: Path) -> None:
    split = read_mvtec(tree)
    assert [sample.path for sample in split.train[:4]] == [
        "bottle/train/good/9.png",
        "bottle/train/good/10.png",
        "bottle/train/good/a.png",
        "cable/train/good/9.png",
    ]
    bottle = [sample for sample in split.test if sample.category == "bottle"]
    assert [(sample.path, sample.defect) for sample in bottle] == [
        ("bottle/test/good/0.png", None),
        ("bottle/test/hole/1.png", "hole"),
        ("bottle/test/hole/2.png", "hole"),
        ("bottle/test/hole/10.png", "hole"),
    ]
    for sample in bottle[1:]:
        assert isinstance(sample.image, Path)
        assert sample.image == tree / sample.path
        expected = tree / "bottle/ground_truth/hole" / f"{sample.image.stem}_mask.png"
        assert sample.mask == expected
    assert all(sample.injected is None for sample in split.train)


def test_only_chosen_categories_are_read(tree: Path) -> None:
    (tree / "bottle" / "ground_truth" / "hole" / "1_mask.png").unlink()  # would be an error
    for categories in (["cable"], "cable", ["cable", "cable"]):
        assert read_mvtec(tree, categories).categories == ["cable"]


def test_order_of_categories_does_not_matter(tree: Path) -> None:
    one, other = (read_mvtec(tree, names) for names in (["cable", "bottle"], ["bottle", "cable"]))
    assert [sample.path for sample in one.train] == [sample.path for sample in other.train]


def test_endings_in_any_case_and_other_files(tree: Path) -> None:
    train = tree / "bottle" / "train" / "good"
    _touch(train, "b.JPG", "c.jpeg", "d.Bmp", "e.TIF", "f.tiff", "g.webp")
    _touch(train, "._9.png", ".DS_Store", "Thumbs.db", "list.csv", "folder.png/x.txt")
    names = [Path(sample.path).name for sample in read_mvtec(tree, ["bottle"]).train]
    assert names[:3] == ["9.png", "10.png", "a.png"]
    assert names[3:] == ["b.JPG", "c.jpeg", "d.Bmp", "e.TIF", "f.tiff", "g.webp"]


def test_masks_are_paired_by_stem(tree: Path) -> None:
    truth = tree / "bottle" / "ground_truth" / "hole"
    (truth / "2_mask.png").rename(truth / "2.bmp")
    _touch(truth, "0_mask.png")  # belongs to no image; sorted pairing would shift all masks
    masks = {s.path: s.mask for s in read_mvtec(tree, ["bottle"]).test if s.is_anomaly}
    assert masks == {
        "bottle/test/hole/1.png": truth / "1_mask.png",
        "bottle/test/hole/2.png": truth / "2.bmp",
        "bottle/test/hole/10.png": truth / "10_mask.png",
    }


def test_no_ground_truth_means_no_masks(tree: Path) -> None:
    (tree / "bottle" / "ground_truth").rename(tree / "elsewhere")
    split = read_mvtec(tree, ["bottle"])
    assert all(sample.mask is None for sample in split.test)
    assert sum(sample.is_anomaly for sample in split.test) == 3
    assert split.notes == ["category bottle: no ground_truth: pixel metrics are skipped"]
    assert not read_mvtec(tree, ["cable"]).notes


def test_missing_masks(tree: Path) -> None:
    truth = tree / "bottle" / "ground_truth"
    (truth / "hole" / "2_mask.png").unlink()
    message = _failure(tree)
    assert message.startswith(
        f"{truth / 'hole'} lacks the masks of 1 of 3 images, first 2_mask.png"
    )
    assert f"remove {truth} to go without" in message
    _touch(tree, "cable/test/dent/1.png")  # a kind without any mask beside one that has them
    assert "lacks the masks of 1 of 1" in _failure(tree, ["cable"])


def test_ambiguous_masks(tree: Path) -> None:
    _touch(tree, "bottle/ground_truth/hole/2_mask.bmp")
    assert "2_mask.bmp and 2_mask.png differ only in their ending" in _failure(tree)
    _touch(tree, "cable/test/hole/1.jpg")
    assert "1.jpg and 1.png differ only in their ending" in _failure(tree, ["cable"])


def test_single_category(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = read_mvtec(tree / "bottle")
    assert split.categories == ["bottle"]
    assert split.train[0].path == "train/good/9.png"
    monkeypatch.chdir(tree / "bottle" / "train")
    assert read_mvtec("..", ["bottle"]).categories == ["bottle"]


def test_links_are_followed_by_their_own_name(tree: Path, tmp_path: Path) -> None:
    link = tmp_path / "links"
    link.mkdir()
    (link / "jar").symlink_to(tree / "bottle", target_is_directory=True)
    split = read_mvtec(link)
    assert split.categories == ["jar"]
    assert split.train[0].path == "jar/train/good/9.png"
    assert read_mvtec(link / "jar").categories == ["jar"]
    lost = tree / "bottle" / "train" / "good" / "lost.png"
    lost.symlink_to(tmp_path / "nowhere.png")  # listed, so that the check of all files names it
    assert lost in [sample.image for sample in read_mvtec(tree).train]


def test_home_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree.parent))
    assert len(read_mvtec("~/data").train) == 6


def test_missing_root(tree: Path) -> None:
    assert _failure(None).startswith("data.root=DIR is missing: name the folder that holds CATEG")
    assert f"data.root={tree / 'none'} does not exist; name the folder" in _failure(tree / "none")
    assert "license.txt is a file, not a folder; name" in _failure(tree / "license.txt")


def test_no_category(tree: Path, tmp_path: Path) -> None:
    start = f"data.root={tmp_path} is not laid out as mvtec (expected CATEGORY/train/good/*.png"
    message = _failure(tmp_path)
    assert message.startswith(start)
    assert message.endswith(f": {tree} is; use data.root={tree}")
    empty = tmp_path / "more" / "empty"
    empty.mkdir(parents=True)
    assert _failure(empty).endswith(": it holds no folders; name the right one")


def test_another_layout_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "candle/Data/Images/Normal/0.JPG", "split_csv/1cls.csv")
    assert _failure(tmp_path).endswith("): it looks like visa; use data=visa")


def test_unknown_category(tree: Path) -> None:
    message = _failure(tree, ["cabel", "bottle"])
    assert message == f"data.categories=[cabel]: not in data.root={tree}; there are: bottle, cable"
    assert "not in data.root" in _failure(tree, ["../data/bottle"])
    assert "no category is named; there are: bottle, cable" in _failure(tree, [])


@pytest.mark.parametrize("remove", ["files", "folder"])
def test_no_training_images(tree: Path, remove: str) -> None:
    good = tree / "cable" / "train" / "good"
    for file in good.iterdir():
        file.unlink()
    if remove == "folder":
        good.rmdir()
        good.parent.rmdir()
    assert f"category cable: {good} has no training images (bmp " in _failure(tree)


def test_no_test_images(tree: Path) -> None:
    (tree / "cable" / "test").rename(tree / "cable" / "tests")
    split = read_mvtec(tree)
    assert split.notes == ["category cable: no test images: no metrics for it"]
    assert Counter(sample.category for sample in split.train) == {"bottle": 3, "cable": 3}
    assert {sample.category for sample in split.test} == {"bottle"}


def test_images_that_are_not_read_are_told(tree: Path) -> None:
    _touch(tree, "cable/train/bad/0.png", "cable/train/0.png", "cable/test/1.png")
    split = read_mvtec(tree)
    assert split.notes == ["category cable: not read: train/bad, train/*, test/*"]
    assert Counter(sample.category for sample in split.train) == {"bottle": 3, "cable": 3}


@pytest.mark.parametrize("word", ["OK", "Good", "normal", "i.O.", "0", "defect-free"])
def test_other_words_for_good(tree: Path, word: str) -> None:
    bottle = tree / "bottle"
    (bottle / "test" / "good").rename(bottle / "test" / word)
    expected = {None: 1, "hole": 3}
    assert Counter(s.defect for s in read_mvtec(tree, ["bottle"]).test) == expected
    (bottle / "train" / "good").rename(bottle / "train" / word)
    for root in (tree, bottle):
        split = read_mvtec(root, ["bottle"])
        assert len(split.train) == 3
        assert {s.label for s in split.train} == {word}
        assert Counter(s.defect for s in split.test) == expected
        assert split.notes == []


def test_bad_is_a_kind_beside_ok(tree: Path) -> None:
    test = tree / "bottle" / "test"
    (test / "good").rename(test / "OK")
    (test / "hole").rename(test / "NG")
    (tree / "bottle" / "ground_truth" / "hole").rename(tree / "bottle" / "ground_truth" / "NG")
    assert Counter(s.defect for s in read_mvtec(tree, ["bottle"]).test) == {None: 1, "NG": 3}


@pytest.mark.parametrize(
    ("part", "word", "why"),
    [
        ("test", "OK", "good and OK are different words for normal"),
        ("train", "ok", "good and ok are different words for normal"),
        ("test", "good2", "good2 (beside good) may mean normal or defective"),
        ("test", "no hole", "no hole (beside good) may mean normal or defective"),
        ("test", "unknown", "unknown says nothing"),
    ],
)
def test_doubtful_folders_are_refused(tree: Path, part: str, word: str, why: str) -> None:
    _touch(tree, f"cable/{part}/{word}/1.png")
    message = _failure(tree)
    assert message.startswith(f"the folders in {tree / 'cable' / part}: ")
    assert message.endswith("or by their defect, or give data=mvtec data.normal=NAME")
    assert "; name them good" in message
    assert set(why.split()) <= set(message.replace(":", "").replace(";", "").split())


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing")])
def test_other_names_of_the_parts(tree: Path, train: str, test: str) -> None:
    expected = read_mvtec(tree, ["cable"])
    (tree / "cable" / "train").rename(tree / "cable" / train)
    (tree / "cable" / "test").rename(tree / "cable" / test)
    split = read_mvtec(tree, ["cable"])
    assert [s.defect for s in split.test] == [s.defect for s in expected.test]
    assert split.train[0].path == f"cable/{train}/good/9.png"


def test_training_images_of_another_name(tree: Path) -> None:
    (tree / "cable" / "train" / "good").rename(tree / "cable" / "train" / "ok_front")
    message = _failure(tree, ["cable"])
    assert "add some, rename one of the folders beside it (ok_front) or name it in data" in message
    assert len(read_mvtec(tree, ["cable"], normal=["ok_front", "good"]).train) == 3
    (tree / "bottle" / "train" / "good").rename(tree / "bottle" / "train" / "ok_front")
    assert read_mvtec(tree / "bottle", normal=["ok_front", "good"]).categories == ["bottle"]


def test_the_words_for_normal_can_be_named(tree: Path) -> None:
    _touch(tree, "cable/train/OK/1.png", "cable/test/OK/1.png", "cable/test/unknown/1.png")
    _touch(tree, "cable/ground_truth/unknown/1.png", "cable/ground_truth/good/0.png")
    split = read_mvtec(tree, ["cable"], normal="ok")
    assert [sample.path for sample in split.train] == ["cable/train/OK/1.png"]
    kinds = Counter(sample.defect for sample in split.test)
    assert kinds == {None: 1, "good": 1, "hole": 3, "unknown": 1}
    assert split.notes == ["category cable: not read: train/good"]
    assert len(read_mvtec(tree, ["cable"], normal=["good", "OK"]).train) == 4


def test_words_for_normal_that_are_not_there(tree: Path) -> None:
    for root in (tree, tree / "bottle"):
        with pytest.raises(UserError, match=r"train/\.\./x has no training images .*\(good\)"):
            read_mvtec(root, ["bottle"], normal="../x")
    with pytest.raises(UserError, match=r"data\.normal=\[\] names no folder"):
        read_mvtec(tree, normal=[])


def test_mpdd(tmp_path: Path) -> None:
    _touch(
        tmp_path / "MPDD" / "bracket_black",
        *("train/good/000.png", "train/good/001.png", "test/good/000.png"),
        *("test/hole/000.png", "test/scratches/000.png"),
        *("ground_truth/hole/000_mask.png", "ground_truth/scratches/000_mask.png"),
    )
    painted = "defective_painting"
    _touch(
        tmp_path / "MPDD" / "bracket_brown",
        *("train/good/000.png", "test/good/000.png", f"test/{painted}/000.png"),
        *("test/bend_and_parts_mismatch/000.png", f"ground_truth/{painted}/000_mask.png"),
        "ground_truth/bend_and_parts_mismatch/000_mask.png",
    )
    split = read_mvtec(tmp_path / "MPDD")
    assert split.categories == ["bracket_black", "bracket_brown"]
    assert (len(split.train), split.notes) == (3, [])
    kinds = Counter(sample.defect or "" for sample in split.test)
    each = ("hole", "scratches", painted, "bend_and_parts_mismatch")
    assert kinds == {"": 2, **dict.fromkeys(each, 1)}
    assert all((sample.mask is not None) == sample.is_anomaly for sample in split.test)


def test_images_further_below_are_told(tree: Path) -> None:
    _touch(tree, "cable/test/hole/deep/9.png", "cable/val/good/1.png")
    assert read_mvtec(tree, ["cable"]).notes == ["category cable: not read: val, test/hole/*/"]


@pytest.fixture
def second(tmp_path: Path) -> Path:
    root = tmp_path / "mvtec_ad_2"
    for category in ("can", "vial"):
        _touch(
            root / category,
            *(f"train/good/{n:03}_regular.png" for n in range(4)),
            "validation/good/000_regular.png",
            *(f"test_public/good/{n:03}_{light}.png" for n in (0, 1) for light in ("regular", "x")),
            *(f"test_public/bad/{n:03}_regular.png" for n in (0, 1, 2)),
            *(f"test_public/ground_truth/bad/{n:03}_regular_mask.png" for n in (0, 1, 2)),
            "test_private/000_regular.png",
            "test_private_mixed/000_mixed.png",
        )
    return root


def test_mvtec_ad_2(second: Path) -> None:
    split = read_mvtec(second)
    assert split.categories == ["can", "vial"]
    assert Counter((s.category, s.defect) for s in split.train) == {
        ("can", None): 4,
        ("vial", None): 4,
    }
    kinds = Counter((s.category, s.defect) for s in split.test)
    assert kinds == {
        (name, kind): n for name in ("can", "vial") for kind, n in ((None, 4), ("bad", 3))
    }
    truth = "test_public/ground_truth/bad"
    assert {s.path: s.mask for s in split.test if s.category == "can" and s.is_anomaly} == {
        f"can/test_public/bad/{n:03}_regular.png": second
        / "can"
        / truth
        / f"{n:03}_regular_mask.png"
        for n in (0, 1, 2)
    }
    assert all(sample.mask is None for sample in split.test if not sample.is_anomaly)
    unread = "not read: validation, test_private, test_private_mixed"
    assert split.notes == [f"category can: {unread}", f"category vial: {unread}"]


def test_mvtec_ad_2_without_masks(second: Path) -> None:
    (second / "can" / "test_public" / "ground_truth").rename(second / "elsewhere")
    split = read_mvtec(second / "can")
    assert split.notes[0] == "category can: no test_public/ground_truth: pixel metrics are skipped"
    assert [sample.mask for sample in split.test] == [None] * 7


def test_a_folder_test_goes_before_test_public(tree: Path) -> None:
    _touch(tree, "cable/test_public/good/9.png")
    split = read_mvtec(tree, ["cable"])
    assert len(split.test) == 4
    assert split.notes == ["category cable: not read: test_public"]


def test_unreadable_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tree / "cable" / "test" / "hole"
    listing = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == locked:  # by hand, since an administrator may read every folder
            raise PermissionError(errno.EACCES, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert f"{locked} cannot be listed (Permission denied); check" in _failure(tree)
