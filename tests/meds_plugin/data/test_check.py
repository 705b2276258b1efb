from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data import check
from meds_plugin.data.check import CheckReport, ImageFacts, check_samples
from meds_plugin.data.decoding import decode
from meds_plugin.data.samples import Sample
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _file(folder: Path, name: str, size: tuple[int, int] = (6, 4), **options: Any) -> Path:
    path = folder / name
    Image.fromarray(_pixels((size[1], size[0], 3))).save(path, **options)
    return path


def _sample(image: Path, mask: Path | None = None) -> Sample:
    return Sample(image.name, "cat", "scratch" if mask else None, image, mask)


def _check(*samples: Sample, **options: Any) -> CheckReport:
    return check_samples(samples, **options)


def test_good_files_have_no_problems(tmp_path: Path) -> None:
    image, mask = _file(tmp_path, "a.png"), _file(tmp_path, "m.png")
    array = Sample("b", "cat", "hole", _pixels((4, 6, 3)), _pixels((4, 6)))
    samples = [_sample(image, mask), _sample(_file(tmp_path, "c.png", (1, 1))), array]
    report = _check(*samples)
    assert (report.problems, report.unusable) == ([], frozenset())
    assert _check().problems == []


def test_facts_of_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = tmp_path / "deep.tif"
    Image.fromarray(np.full((2, 3), 999, np.uint16)).save(deep)
    pixels = _pixels((4, 6, 3))
    samples = [
        _sample(_file(tmp_path, "turned.png", (6, 4), exif=exif)),
        _sample(deep),
        Sample("array", "cat", None, pixels),
        _sample(tmp_path / "gone.png"),
    ]
    report = _check(*samples)
    turned, grey, array, gone = map(report.facts_of, samples)
    assert turned
    assert (turned.width, turned.height, turned.mode, turned.bits) == (4, 6, "RGB", 8)
    assert grey
    assert (grey.width, grey.height, grey.mode, grey.bits) == (3, 2, "I;16", 16)
    assert (grey.look.mode, grey.look.bits) == ("I;16", 16)
    assert array
    assert array == ImageFacts(6, 4, "RGB", 8, array.digest, array.look)
    assert gone is None
    assert report.facts_of(Sample("other", "cat", None, _pixels((4, 6, 3)))) is None
    assert len({facts.digest for facts in (turned, grey, array) if facts}) == 3


def test_digests_are_equal_for_equal_bytes_only(tmp_path: Path) -> None:
    one, two = _file(tmp_path, "a.png"), tmp_path / "b.png"
    two.write_bytes(one.read_bytes())
    other = _file(tmp_path, "c.png", compress_level=0)  # the same pixels
    pixels = _pixels((4, 6, 3))
    arrays = [pixels, pixels.copy(), pixels.reshape(6, 4, 3)]
    samples = [_sample(path) for path in (one, two, other)]
    samples += [Sample(str(n), "cat", None, array) for n, array in enumerate(arrays)]
    report = _check(*samples)
    digests = [facts.digest for sample in samples if (facts := report.facts_of(sample))]
    assert digests[0] == digests[1] != digests[2]
    assert digests[3] == digests[4] != digests[5]


def test_every_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = _file(tmp_path, "a.png"), _file(tmp_path, "m.png")
    decoded: list[Path] = []

    def count(path: Path, **options: Any) -> Any:
        decoded.append(path)
        return decode(path, **options)

    monkeypatch.setattr(check, "decode", count)
    _check(*[_sample(image, mask), _sample(image, mask), _sample(image)])
    assert sorted(decoded) == [image, mask]


def test_all_problems_are_found_in_order(tmp_path: Path) -> None:
    good = _file(tmp_path, "good.png")
    bad = [tmp_path / f"{n:02d}.png" for n in range(20)]
    for path in bad:
        path.touch()
    samples = [_sample(good), *map(_sample, bad[::-1]), _sample(good, bad[3])]
    # The overlap protocol lists a file twice: in training and in test.
    report = _check(*samples, *samples)
    assert [problem.path for problem in report.problems] == [p.name for p in bad[::-1]] + [
        "good.png"
    ]
    for path, problem in zip(bad[::-1], report.problems, strict=False):
        assert problem.reason.startswith(f"{path} is empty (zero bytes): ")
    assert report.problems[-1].reason.startswith(f"{bad[3]} is empty")
    assert report.unusable == {problem.path for problem in report.problems}
    assert report.unusable == {sample.path for sample in samples}


def test_a_bad_image_and_a_bad_mask_are_two_problems(tmp_path: Path) -> None:
    sample = _sample(tmp_path / "image.png", tmp_path / "mask.png")
    reasons = [problem.reason for problem in _check(sample).problems]
    assert [reason.split()[0] for reason in reasons] == [str(sample.image), str(sample.mask)]


def test_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    image, mask = _file(tmp_path, "a.png", (6, 4)), _file(tmp_path, "m.png", (3, 4))
    (problem,) = _check(_sample(image, mask)).problems
    assert problem.path == "a.png"
    assert problem.reason.startswith(
        f"{mask} has 3x4 pixels (width x height) but its image has 6x4: "
    )
    array = Sample("cat/b", "cat", "hole", _pixels((4, 6, 3)), _pixels((6, 4)))
    assert "the mask of cat/b has 4x6 pixels" in _check(array).problems[0].reason


def test_every_file_of_a_mask_is_checked(tmp_path: Path) -> None:
    image = _file(tmp_path, "a.png")
    masks = (_file(tmp_path, "m.png"), _file(tmp_path, "n.png", (3, 4)), tmp_path / "gone.png")
    report = _check(Sample("a", "cat", "hole", image, masks))
    small, lost = [problem.reason for problem in report.problems]
    assert small.startswith(f"{masks[1]} has 3x4 pixels (width x height) but its image has 6x4: ")
    assert lost.startswith(f"{masks[2]} does not exist")
    assert set(report.masks) == set(masks[:2])


def test_arrays_of_wrong_shape_are_named() -> None:
    image = Sample("cat/b", "cat", None, _pixels((4, 6)))
    (problem,) = _check(image).problems
    assert problem.reason == "cat/b: the image must be uint8 [H, W, 3], got uint8 [4, 6]"
    mask = Sample("cat/b", "cat", "hole", _pixels((4, 6, 3)), _pixels((4, 6, 3)))
    (problem,) = _check(mask).problems
    assert problem.reason.startswith("the mask of cat/b: the mask must be uint8 [H, W], got")


def test_too_large_images_and_masks_are_problems(tmp_path: Path) -> None:
    image, mask = _file(tmp_path, "a.png", (20, 20)), _file(tmp_path, "m.png", (30, 20))
    report = _check(_sample(image, mask), max_pixels=399)
    assert [problem.reason.split(",")[0] for problem in report.problems] == [
        f"{image} has 20x20 pixels",
        f"{mask} has 30x20 pixels",
    ]
    with pytest.raises(UserError, match=r"data.max_pixels must be"):
        _check(max_pixels=0)


def test_a_file_that_vanishes_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = _file(tmp_path, "a.png")

    def fail(content: bytes) -> str:
        raise MemoryError

    monkeypatch.setattr(check, "content_digest", fail)
    (problem,) = _check(_sample(image)).problems
    assert problem.reason.startswith(f"{image} cannot be read (MemoryError): ")


def test_libtiffs_own_messages_stay_off_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, "a.tif", (40, 40), compression="tiff_lzw")
    whole = path.read_bytes()
    broken = whole[:600] + b"\xff" * 40 + whole[640:]
    path.write_bytes(broken)
    os.write(2, b"before\n")
    (problem,) = _check(_sample(path)).problems
    assert "is cut off or damaged" in problem.reason
    os.write(2, b"after\n")
    sys.stderr.write("python\n")
    sys.stderr.flush()
    assert capfd.readouterr().err.split() == ["before", "after", "python"]
