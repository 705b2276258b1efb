from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.check import check_samples
from meds_plugin.data.inventory import duplicates, inventory_table
from meds_plugin.data.samples import Sample, Split, Variation

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.check import CheckReport
    from meds_plugin.data.samples import Pixels


def _pixels(seed: int, height: int = 4, width: int = 6) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _sample(name: str, seed: int, defect: str | None = None, **more: Any) -> Sample:
    return Sample(name, name.split("/")[0], defect, _pixels(seed), **more)


def _report(split: Split) -> CheckReport:
    return check_samples([*split.train, *split.test])


def _rows(split: Split, report: CheckReport | None, **options: Any) -> list[list[str]]:
    """Return the cells of the table; two spaces and more lie between them."""
    lines = inventory_table(split, report, **options).splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


@pytest.fixture
def split() -> Split:
    known: dict[str, Any] = {"injected": False}
    mask = np.full((4, 6), 255, np.uint8)
    return Split(
        train=[
            *(_sample(f"bottle/train/good/{n}.png", n, **known) for n in range(3)),
            _sample("bottle/test/cut/0.png", 20, "cut", mask=mask, injected=True),
            _sample("bottle10/train/good/0.png", 4),
            *(_sample(f"bottle9/a/{n}.png", 10 + n, view="C1") for n in range(2)),
            _sample("bottle9/a/2.png", 12, "cut", view="C2", injected=True),
        ],
        test=[
            _sample("bottle/test/good/0.png", 30),
            _sample("bottle/test/cut/1.png", 31, "cut", mask=mask),
            _sample("bottle/test/cut/2.png", 32, "cut"),
            _sample("bottle9/a/3.png", 33, "cut", view="C3"),
        ],
        notes=["category bottle10: no test images: no metrics for it"],
    )


def test_counts_of_every_category(split: Split) -> None:
    rows = _rows(split, _report(split))
    assert rows[0] == ["train", "train", "test", "test", "test"]
    assert rows[1] == [
        *["category", "images", "defect", "normal", "defect", "masks", "views"],
        *["pixels", "kind", "first image"],
    ]
    looks = ["6x4", "RGB"]
    assert rows[2] == [*["bottle", "4", "1", "1", "2", "1"], *looks, "bottle/train/good/0.png"]
    # Two are not known to be normal: nobody says what is injected.
    assert rows[3] == [*["bottle9", "3", "1+?", "0", "1", "0", "3"], *looks, "bottle9/a/0.png"]
    assert rows[4] == [
        *["bottle10", "1", "?", "0", "0", "0"],
        *looks,
        "bottle10/train/good/0.png",
    ]
    assert rows[5] == ["all", "8", "2+?", "1", "3", "1", "3", *looks]
    assert rows[6:] == [
        ["normal: 3 (train) + 1 (test); defective: cut 2 (train) + 3 (test); unknown: 3 (train)"],
        ["note: category bottle10: no test images: no metrics for it"],
        ["identical files: none"],
    ]


def test_columns_without_content_are_left_out(split: Split) -> None:
    one = Split([split.train[0]], [])
    lines = inventory_table(one, _report(one)).splitlines()
    assert "views" not in lines[1]
    assert len(lines) == 5  # no row for all categories together
    unknown = "identical files, near-duplicates, issues: not checked"
    assert inventory_table(Split([], []), None) == unknown


def test_numbers_stand_below_each_other(split: Split) -> None:
    lines = inventory_table(split, _report(split)).splitlines()
    end = lines[1].index("images") + len("images")
    assert [line[end - 1] for line in lines[2:6]] == ["4", "3", "1", "8"]
    start = lines[1].index("pixels")
    assert all(line[start : start + 3] == "6x4" for line in lines[2:6])


def _sized(sizes: list[tuple[int, int]]) -> str:
    samples = [
        Sample(f"a/{n}", "a", None, _pixels(n, height, width), injected=False)
        for n, (width, height) in enumerate(sizes)
    ]
    split = Split(samples, [])
    return _rows(split, _report(split))[2][6]


def test_sizes() -> None:
    assert _sized([(8, 6)] * 3) == "8x6"
    assert _sized([(8, 6), (8, 6), (4, 9)]) == "4x6..8x9, mostly 8x6"
    assert _sized([(8, 6), (4, 9)]) == "4x6..8x9"


def test_kinds_of_pixels(tmp_path: Path) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    images = {
        "a.png": Image.fromarray(grey),
        "b.png": Image.fromarray(grey.astype(np.uint16)),
        "c.png": Image.fromarray(grey).convert("P"),
        "d.tif": Image.fromarray(grey / np.float32(9)),
        "e.png": Image.fromarray(grey > 2),
        "f.jpg": Image.fromarray(grey).convert("CMYK"),
        "g.png": Image.fromarray(grey + 9),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    split = Split([Sample(name, "x", None, tmp_path / name) for name in images], [])
    kinds = "grey, grey 16-bit, palette, float 32-bit, grey 1-bit, CMYK"
    assert kinds in inventory_table(split, _report(split))


def test_long_paths_lose_their_middle() -> None:
    name = "category/" + "folder/" * 20 + "image_0001.png"
    split = Split([_sample(name, 0, injected=False)], [])
    for width in (90, 120):
        lines = inventory_table(split, _report(split), width=width).splitlines()
        assert len(lines[2]) == width
        assert lines[2].endswith("0001.png")
        assert "  category/" in lines[2]
    assert inventory_table(split, _report(split), width=400).splitlines()[2].endswith(name)


def test_thirty_categories_fit_a_screen() -> None:
    samples = [_sample(f"category_{n:02d}/train/good/000.png", n, view="C1") for n in range(30)]
    split = Split(samples, [])
    lines = inventory_table(split, _report(split), width=100).splitlines()
    assert len(lines) == 2 + 30 + 1 + 2
    assert max(map(len, lines)) <= 100


def test_strange_names_keep_to_their_line() -> None:
    split = Split([_sample("a\nb/im\x1bage.png", 0)], [])
    assert len(inventory_table(split, _report(split)).splitlines()) == 5


def test_unchecked_images_are_counted_only(split: Split) -> None:
    rows = _rows(split, None)
    assert rows[2][6:8] == ["?", "?"]
    assert rows[-1] == ["identical files, near-duplicates, issues: not checked"]


def _labels(train: list[Sample], test: list[Sample]) -> str:
    line = inventory_table(Split(train, test), None).splitlines()[3]  # below two heads and a row
    assert line.startswith("normal: ")
    return line


def test_labels_are_printed_as_the_data_set_has_them() -> None:
    known: dict[str, Any] = {"injected": False}
    train = [_sample(f"a/{n}", n, label="good", **known) for n in range(30)]
    train += [_sample("a/x", 40, "scratch", injected=True), _sample("a/y", 41)]
    test = [_sample(f"a/t{n}", n, label="OK") for n in range(12)]
    test += [_sample(f"a/u{n}", n, "scratch", label="scratch") for n in range(5)]
    test += [_sample("a/v", 50, "anomaly", label="1"), _sample("a/w", 50, "n.i.O.\n")]
    assert _labels(train, test) == (
        "normal: good 30 (train), OK 12 (test); defective: scratch 1 (train) + 5 (test), "
        "'1' 1 (test), 'n.i.O.\\n' 1 (test); unknown: 1 (train)"
    )


def test_that_nothing_is_taken_for_normal_is_told() -> None:
    test = [_sample("a/0", 0, "PASS"), _sample("a/1", 0, "PASS")]
    assert _labels([_sample("a/2", 2)], test) == (
        "normal: none; defective: PASS 2 (test); unknown: 1 (train)"
    )


def test_many_kinds_of_defects_are_cut_short() -> None:
    test = [_sample(f"a/{n}", n, f"kind {n % 20:02}") for n in range(49)]
    test += [_sample("a/x", 0, "x" * 200)] * 3
    line = _labels([_sample("a/train", 0, label="good", injected=False)], test)
    assert line.startswith(
        "normal: good 1 (train); defective: kind 00 3 (test), kind 01 3 (test), "
    )
    assert line.endswith("kind 06 3 (test), kind 07 3 (test), 13 more (28 images)")


# ---- duplicates


def test_identical_files_are_counted_by_pairs(tmp_path: Path) -> None:
    for number in range(4):
        pixels = _pixels(0 if number < 3 else 1)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    samples = [Sample(f"x/{n}.png", "x", None, tmp_path / f"{n}.png") for n in range(4)]
    array = Sample("x/array.png", "x", None, _pixels(0))  # equal pixels, but not a file's bytes
    split = Split(train=[samples[3], *samples[:2], array], test=[samples[2]])
    found = duplicates(split, _report(split))
    assert found == [
        "identical files: 1 pair (x/0.png = x/1.png) within the training images",
        "identical files: 2 pairs (x/0.png = x/2.png, ...) of a training and a test image: a leak",
    ]
    assert inventory_table(split, _report(split)).endswith("\n".join(found))
    alone = Split(train=samples[:3], test=[samples[3]])
    (line,) = duplicates(alone, _report(alone))
    assert line == "identical files: 3 pairs (x/0.png = x/1.png, ...) within the training images"


def test_what_the_noise_protocol_does_is_no_leak() -> None:
    defects = [_sample(f"x/test/cut/{n}.png", n, "cut") for n in range(3)]
    injected = [replace(sample, injected=True) for sample in defects[:2]]
    varied = [
        replace(injected[0], path=f"x/test/cut/0.png#{n}", variation=Variation(n, 1.0))
        for n in (1, 2)
    ]
    split = Split([_sample("x/train/0.png", 9), *injected, *varied], defects)
    assert duplicates(split, _report(split)) == [
        "identical files: none",
        "4 injected images are also test images, as the noise protocol keeps them there",
        "3 pairs of injected images are variations of one file",
    ]


def test_a_copy_of_an_injected_image_is_a_leak(tmp_path: Path) -> None:
    for name in ("a", "copy"):
        Image.fromarray(_pixels(0)).save(tmp_path / f"{name}.png")
    test = [Sample(f"x/{n}.png", "x", "cut", tmp_path / f"{n}.png") for n in ("a", "copy")]
    split = Split([replace(test[0], injected=True)], test)
    assert duplicates(split, _report(split)) == [
        "identical files: 1 pair (x/a.png = x/copy.png) of a training and a test image: a leak",
        "1 injected images are also test images, as the noise protocol keeps them there",
    ]
    # Without a noise protocol nobody has put it there on purpose.
    split = Split([replace(test[0], injected=None)], test)
    (line,) = duplicates(split, _report(split))
    assert "2 pairs (x/a.png = x/a.png, ...) of a training and a test image: a leak" in line


def test_many_identical_files_are_counted_at_once() -> None:
    pixels = _pixels(0)
    split = Split([Sample(f"x/{n}", "x", None, pixels) for n in range(3000)], [])
    (line,) = duplicates(split, _report(split))
    assert f"{3000 * 2999 // 2} pairs (x/0 = x/1, ...) within the training images" in line
