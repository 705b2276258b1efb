from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.images import read_image
from meds_plugin.data.masks import read_mask
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _values(shape: tuple[int, ...], high: int = 256) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, high, shape)


def _pixels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return _values(shape).astype(np.uint8)


def _read(path: Path) -> NDArray[Any]:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def _write_png16(path: Path, values: NDArray[Any], colour: int) -> None:
    """Write a 16-bit PNG by hand: Pillow writes none in colour (2 = RGB, 0 = grey)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_rgb_files_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    pixels = _pixels((5, 7, 3))
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", lossless=True)
    np.testing.assert_array_equal(_read(tmp_path / f"a.{suffix}"), pixels)


def test_array_is_read_as_it_is() -> None:
    pixels = _pixels((5, 7, 3))
    np.testing.assert_array_equal(np.asarray(read_image(pixels)), pixels)


def test_grey_and_binary_become_rgb(tmp_path: Path) -> None:
    grey = _pixels((5, 7))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(_read(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))
    Image.fromarray(grey > 99).save(tmp_path / "binary.png")
    assert set(np.unique(_read(tmp_path / "binary.png"))) == {0, 255}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = _values((9, 8), 65536)
    deep[0, :3] = [0, 65535, 32768]
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep.astype(np.uint16)).save(path)
    read = _read(path)
    np.testing.assert_allclose(read[..., 0], deep * (255 / 65535), atol=1)
    assert read[0, :3, 1].tolist() == [0, 255, 128]


def test_16_bit_colour_and_grey_of_the_same_values_agree(tmp_path: Path) -> None:
    deep = _values((4, 6), 65536)
    _write_png16(tmp_path / "grey.png", deep, 0)
    _write_png16(tmp_path / "colour.png", np.stack([deep] * 3, axis=2), 2)
    np.testing.assert_array_equal(_read(tmp_path / "grey.png"), _read(tmp_path / "colour.png"))


def test_12_bit_fills_the_range(tmp_path: Path) -> None:
    # Two values in three bytes: 0xFFF and 0x800. Pillow writes no such file itself.
    path = tmp_path / "camera.tif"
    Image.fromarray(np.zeros((1, 2), np.uint8)).save(path)
    data = path.read_bytes()
    with Image.open(path) as image:
        tags = dict(image.tag_v2)
        start = tags[273][0]
    assert start + 2 == len(data)
    data = _with_tag(_with_tag(data[:start] + b"\xff\xf8\x00", 258, 12), 279, 3)
    path.write_bytes(data)
    assert _read(path)[0, :, 0].tolist() == [255, 128]


def test_inverted_16_bit_grey_is_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "xray.tif"
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(path)
    assert _read(path)[0, :, 0].tolist() == [0, 128, 255]
    path.write_bytes(_with_tag(path.read_bytes(), 262, 0))  # now 0 is white
    assert _read(path)[0, :, 0].tolist() == [255, 127, 0]


def _with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """Change a number in the first directory of a little-endian TIFF file."""
    (directory,) = struct.unpack_from("<I", tiff, 4)
    (entries,) = struct.unpack_from("<H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", tiff, entry) == (tag,):
            changed = bytearray(tiff)
            struct.pack_into("<H", changed, entry + 8, value)
            return bytes(changed)
    raise AssertionError(tag)


def test_32_bit_integers_are_read_if_they_must_be_16_bits(tmp_path: Path) -> None:
    deep = _values((4, 6), 65536).astype(np.int32)
    deep[0, 0] = 256
    Image.fromarray(deep).save(tmp_path / "fits.tif")
    np.testing.assert_array_equal(_read(tmp_path / "fits.tif")[..., 2], deep >> 8)
    Image.fromarray(deep * 0).save(tmp_path / "black.tif")
    assert not _read(tmp_path / "black.tif").any()
    for name, values in {"large": deep * 1000, "negative": deep - 300}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        with pytest.raises(UserError, match=rf"{name}.tif has 32-bit pixels of unknown range: "):
            read_image(tmp_path / f"{name}.tif")
    # Whether 255 is white or nearly black cannot be told.
    Image.fromarray(deep >> 8).save(tmp_path / "small.tif")
    with pytest.raises(UserError, match=r"small.tif has 32-bit pixels of at most 8 bits, .*: save"):
        read_image(tmp_path / "small.tif")


def test_floats_are_shares_of_white(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(path)
    assert _read(path)[0, :, 0].tolist() == [0, 128, 255]
    for wrong in (1.01, -0.01, np.nan, np.inf):
        Image.fromarray(np.array([[0, 0.5, wrong]], np.float32)).save(path)
        with pytest.raises(UserError, match=r"float.tif has floating-point pixels outside 0..1: "):
            read_image(path)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = _pixels((5, 7, 4))
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(_read(tmp_path / "rgba.png"), pixels[..., :3])
    Image.fromarray(pixels[..., :2], "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(_read(tmp_path / "la.png")[..., 1], pixels[..., 0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_gives_its_colours(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "palette.png", **options)
    expected = [[[10, 20, 30], [200, 0, 0]], [[0, 0, 250], [200, 0, 0]]]
    assert _read(tmp_path / "palette.png").tolist() == expected


def test_exif_turns_image_and_mask(tmp_path: Path) -> None:
    pixels = _pixels((4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(_read(tmp_path / "turned.png"), np.rot90(pixels, -1))
    grey = pixels[..., 0] | 128
    Image.fromarray(grey).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / "mask.png")), np.rot90(grey, -1))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("CMYK", "tif"), ("CMYK", "jpg"), ("YCbCr", "tif"), ("YCbCr", "jpg"), ("LAB", "tif")],
)
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    red = Image.new("RGB", (16, 8), (200, 30, 40)).convert(mode)
    red.save(tmp_path / f"print.{suffix}")
    read = _read(tmp_path / f"print.{suffix}")
    assert read.shape == (8, 16, 3)
    assert np.abs(read - np.array([200.0, 30, 40])).max() < 5


def test_alpha_in_any_form_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "glass.tif"
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 0, 0])
    kinds = {
        "PA": palette.convert("PA"),
        "RGBA": palette.convert("RGBA"),
        "LA": Image.fromarray(np.array([[[7, 0], [9, 255]]], np.uint8), "LA"),
    }
    for mode, image in kinds.items():
        image.putalpha(0)
        image.save(path)
        colours = [[7] * 3, [9] * 3] if mode == "LA" else [[10, 20, 30], [200, 0, 0]]
        assert _read(path)[0].tolist() == colours, mode


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_is_a_colour(tmp_path: Path, mode: str) -> None:
    white = (255, 255, 255) if mode == "RGB" else 255
    image = Image.new(mode, (3, 2), white)
    image.save(tmp_path / "a.png", transparency=white)
    assert (_read(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_turn(tmp_path: Path, orientation: int) -> None:
    pixels = _pixels((4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    flipped = pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    for suffix in ("png", "tif", "webp"):
        path = tmp_path / f"turned.{suffix}"
        Image.fromarray(pixels).save(path, exif=exif, lossless=True)
        np.testing.assert_array_equal(_read(path), np.rot90(flipped, quarters))


def test_several_images_in_a_file_give_the_first(tmp_path: Path) -> None:
    kinds = {"camera.jpg": "MPO", "pages.tif": "TIFF", "film.webp": "WEBP", "film.png": "PNG"}
    for name, kind in kinds.items():
        red, blue = Image.new("RGB", (6, 4), (255, 0, 0)), Image.new("RGB", (6, 4), (0, 0, 255))
        red.save(tmp_path / name, kind, save_all=True, append_images=[blue])
        assert _read(tmp_path / name)[0, 0, 0] > 250
        assert _read(tmp_path / name)[0, 0, 2] < 5


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_read_image_refuses_other_arrays(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \[H, W, 3\], got uint8"):
        read_image(np.zeros(shape, np.uint8))
