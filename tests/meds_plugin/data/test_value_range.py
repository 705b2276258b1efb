from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from meds_plugin.data import DataSettings, Split, prepare
from meds_plugin.data.check import check_samples
from meds_plugin.data.images import read_image
from meds_plugin.data.samples import Sample
from meds_plugin.data.value_range import checked_range, choose_range
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.test_decoding import write_float_tiff
from tests.meds_plugin.data.test_images import _write_png16

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _values(top: int, shape: tuple[int, ...] = (6, 8)) -> NDArray[np.int64]:
    """Values up to the largest."""
    values = np.random.default_rng(0).integers(0, top + 1, shape)
    values[0, 0] = top
    return values


def _sample(folder: Path, name: str, top: int, *, colour: bool = False) -> Sample:
    file = folder / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    if colour:
        _write_png16(file, _values(top, (6, 8, 3)), 2)
    else:
        Image.fromarray(_values(top).astype(np.uint16)).save(file)
    return Sample(file.name, name.split("/")[0], None, file)


def _chosen(*samples: Sample, setting: Any = "auto") -> tuple[Any, list[str]]:
    return choose_range(setting, samples, check_samples(samples))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    ("tops", "white"),
    [
        ([255], 255),
        ([256, 9], 1023),
        ([1023], 1023),
        ([708, 2832], 4095),
        ([4096, 30], 16383),
        ([8191], 16383),
    ],
)
def test_a_set_that_uses_few_bits_fills_them(
    tmp_path: Path, tops: list[int], white: int, colour: bool
) -> None:
    samples = [_sample(tmp_path, f"a/{n}", top, colour=colour) for n, top in enumerate(tops)]
    found, notes = _chosen(*samples)
    assert found == (0, white)
    bits = (white + 1).bit_length() - 1
    (note,) = notes
    assert note.startswith("images use under an eighth of their 16 bits, first 0.png: read as ")
    assert note.endswith(f"read as {bits} bits (data.range=[0,{white}]); data.range=full: as 16")
    for sample, top in zip(samples, tops, strict=True):
        assert not isinstance(sample.image, np.ndarray)
        shown = np.asarray(read_image(sample.image, value_range=found))
        wanted = _values(top, (6, 8, 3) if colour else (6, 8)) * 256 // (white + 1)
        np.testing.assert_array_equal(shown, wanted if colour else np.dstack([wanted] * 3))


@pytest.mark.parametrize("colour", [False, True])
def test_a_set_that_uses_its_bits_is_read_as_ever(tmp_path: Path, colour: bool) -> None:
    bright = _sample(tmp_path, "a/0", 8192 + 255, colour=colour)
    dark = _sample(tmp_path, "a/1", 700, colour=colour)
    assert _chosen(dark, bright) == (None, [])
    shallow = Sample("b", "b", None, np.full((4, 4, 3), 3, np.uint8))
    assert _chosen(shallow) == (None, [])
    # The full range, given, is the same.
    assert not isinstance(bright.image, np.ndarray)
    whole = read_image(bright.image, value_range=(0, 65535))
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(read_image(bright.image)))


def test_a_dark_category_beside_others_is_only_named(tmp_path: Path) -> None:
    samples = [_sample(tmp_path, "nut/0", 60_000), _sample(tmp_path, "bolt/1", 700)]
    found, (note,) = _chosen(*samples)
    assert found is None
    assert note.startswith("images of bolt use under an eighth of their 16 bits, first 1.png")


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    dark = _sample(tmp_path, "a/0", 700)
    assert _chosen(dark, setting=[100, 900]) == ((100, 900), [])
    found, (note,) = _chosen(dark, setting="full")
    assert found is None
    assert "they appear nearly black; data.range=auto" in note


def test_without_a_check_it_is_full_and_said_where_it_may_matter(tmp_path: Path) -> None:
    dark = _sample(tmp_path, "a/0", 700)
    found, (note,) = choose_range("auto", [dark], None)
    assert found is None
    assert note == "data.check=false: data.range=auto reads images of 16 bits as data.range=full"
    photograph = Sample("a", "a", None, tmp_path / "a.jpg")
    array = Sample("b", "b", None, np.zeros((4, 4, 3), np.uint8))
    assert choose_range("auto", [photograph, array], None) == (None, [])
    assert choose_range([1, 2], [dark], None) == ((1, 2), [])


def test_valid_ranges() -> None:
    assert checked_range("auto") is checked_range("full") is None
    assert checked_range(OmegaConf.create([0, 4095])) == (0, 4095)
    assert checked_range((-1.5, 2)) == (-1.5, 2)
    for wrong in ("dark", None, 7, [1], [1, 1], [2, 1], [0, 1, 2], ["a", "b"], [0, math.inf]):
        with pytest.raises(UserError, match=r"data\.range must be auto, full or \[LOW, HIGH\]"):
            checked_range(wrong)
    with pytest.raises(UserError, match=r"data\.range must be"):
        DataSettings(value_range="black")  # type: ignore[arg-type]


def test_a_range_clips_and_takes_every_deep_kind(tmp_path: Path) -> None:
    row = np.array([[50, 100, 148, 199, 200]])
    wanted = [0, 0, 121, 250, 253]
    kinds: dict[str, NDArray[Any]] = {"a.png": row.astype(np.uint16), "b.tif": row.astype(np.int32)}
    for name, values in kinds.items():
        Image.fromarray(values).save(tmp_path / name)
        found = np.asarray(read_image(tmp_path / name, value_range=(100, 200)))
        assert found[0, :, 0].tolist() == wanted, name
    # Without a range, 32 bits are refused, and floats beyond 1.
    Image.fromarray(row.astype(np.float32)).save(tmp_path / "c.tif")
    write_float_tiff(tmp_path / "d.tif", np.dstack([row] * 3).astype("<f4"))
    for name in ("c.tif", "d.tif"):
        with pytest.raises(UserError, match=r"data\.range=\[LOW,HIGH\]"):
            read_image(tmp_path / name)
        found = np.asarray(read_image(tmp_path / name, value_range=(100, 200)))
        assert found[0, :, 2].tolist() == [0, 0, 122, 252, 255], name
    Image.fromarray(np.array([[np.nan, 1]], np.float32)).save(tmp_path / "e.tif")
    with pytest.raises(UserError, match=r"e\.tif has pixels that are not numbers"):
        read_image(tmp_path / "e.tif", value_range=(0, 2))


def test_a_range_of_inverted_grey(tmp_path: Path) -> None:
    path = tmp_path / "xray.tif"
    Image.fromarray(np.array([[0, 1023, 4095]], np.uint16)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHIH", 262, 3, 1, 1)) + 8
    content[place] = 0  # now 0 is white
    path.write_bytes(content)
    found = np.asarray(read_image(path, value_range=(0, 4095)))
    assert found[0, :, 0].tolist() == [255, 192, 0]


@pytest.mark.parametrize("top", [700, 40_000])
def test_colours_of_floats_are_shares_of_white(tmp_path: Path, top: int) -> None:
    floats = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    file = write_float_tiff(tmp_path / "a.tif", floats)
    np.testing.assert_array_equal(np.asarray(read_image(file)), np.rint(floats * 255))
    # Their range is known, so a set that holds some is never stretched.
    sample = Sample("a.tif", "a", None, file)
    assert _chosen(sample, _sample(tmp_path, "a/0", top)) == (None, [])


def test_the_range_does_not_depend_on_what_is_trained_on(tmp_path: Path) -> None:
    train = [_sample(tmp_path, f"a/{n}", 700) for n in range(3)]
    test = [_sample(tmp_path, "a/3", 4000)]
    (tmp_path / "names").write_text("0.png\n")
    for settings in (DataSettings(), DataSettings(exclude=tmp_path / "names")):
        prepared = prepare(Split(train=train, test=test), settings)
        assert prepared.value_range == (0, 4095)
        assert "note: images use under an eighth of their 16 bits" in prepared.summary
    fixed = prepare(Split(train=train, test=test), DataSettings(value_range=(0, 900)))
    assert fixed.value_range == (0, 900)
