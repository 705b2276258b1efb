from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.images import check_samples, read_image, read_mask
from meds_plugin.data.samples import Sample
from meds_plugin.errors import UserError

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


def test_32_bit_is_read_if_its_range_is_16_bits(tmp_path: Path) -> None:
    deep = _values((4, 6), 65536).astype(np.int32)
    Image.fromarray(deep).save(tmp_path / "fits.tif")
    np.testing.assert_array_equal(_read(tmp_path / "fits.tif")[..., 2], deep >> 8)
    for name, values in {"large": deep * 1000, "float": deep.astype(np.float32)}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        with pytest.raises(UserError, match=rf"{name}.tif has 32-bit pixels .*; save it with 8"):
            read_image(tmp_path / f"{name}.tif")


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


def test_cmyk_and_jpeg_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert _read(tmp_path / "print.jpg").shape == (4, 6, 3)


def test_several_pictures_in_a_file_give_the_first(tmp_path: Path) -> None:
    for name, kind in {"camera.jpg": "MPO", "pages.tif": "TIFF"}.items():
        red, blue = Image.new("RGB", (6, 4), (255, 0, 0)), Image.new("RGB", (6, 4), (0, 0, 255))
        red.save(tmp_path / name, kind, save_all=True, append_images=[blue])
        assert _read(tmp_path / name)[0, 0, 0] > 250


def test_mask_takes_the_largest_colour_and_no_alpha(tmp_path: Path) -> None:
    colours = _pixels((5, 7, 4))
    colours[..., 3] = 255
    Image.fromarray(colours).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), colours[..., :3].max(axis=2))


@pytest.mark.parametrize("source", ["grey", "palette", "binary", "16-bit", "array"])
def test_masks_of_labels_become_0_and_255(tmp_path: Path, source: str) -> None:
    labels = np.array([[0, 1], [3, 0]], np.uint8)
    path = tmp_path / "mask.png"
    if source == "palette":
        image = Image.fromarray(labels, "P")
        image.putpalette([level for level in range(256) for _ in range(3)])
        image.save(path)
    elif source != "array":
        kinds = {"grey": labels, "binary": labels > 0, "16-bit": labels.astype(np.uint16)}
        Image.fromarray(kinds[source]).save(path)
    mask = read_mask(labels if source == "array" else path)
    assert np.asarray(mask).tolist() == [[0, 255], [255, 0]]


def test_masks_keep_grey_edges_and_emptiness() -> None:
    for row in ([0, 100, 255], [0, 0, 0]):
        assert np.asarray(read_mask(np.array([row], np.uint8))).tolist() == [row]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_read_image_refuses_other_arrays(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \[H, W, 3\], got uint8"):
        read_image(np.zeros(shape, np.uint8))


# ---- the check before training


def _file(folder: Path, name: str, size: tuple[int, int] = (6, 4)) -> Path:
    path = folder / name
    Image.fromarray(_pixels((size[1], size[0], 3))).save(path)
    return path


def _sample(image: Path, mask: Path | None = None) -> Sample:
    return Sample(image.name, "cat", "scratch" if mask else None, image, mask)


def _failure(samples: list[Sample]) -> str:
    with pytest.raises(UserError) as caught:
        check_samples(samples, progress=False)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_good_files_pass(tmp_path: Path) -> None:
    image, mask = _file(tmp_path, "a.png"), _file(tmp_path, "m.png")
    array = Sample("b", "cat", "hole", _pixels((4, 6, 3)), _pixels((4, 6)))
    check_samples([_sample(image, mask), _sample(image), array], workers=2)
    check_samples([])


def test_bad_files_are_named_with_the_reason(tmp_path: Path) -> None:
    good = _file(tmp_path, "good.png")
    empty = tmp_path / "empty.png"
    empty.touch()
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:-40])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    gone = tmp_path / "gone.png"
    reasons = {
        empty: "is empty (zero bytes)",
        cut: "is corrupt or unreadable (",
        text: "is corrupt or no PNG, JPEG",
        gone: "does not exist",
    }
    for path, reason in reasons.items():
        message = _failure([_sample(good), _sample(path)])
        assert message.startswith(f"1 image cannot be used: {path} {reason}")
        assert message.endswith("; repair or remove what is named")
    message = _failure([_sample(good, empty)])
    assert f"{empty} is empty" in message


def test_three_files_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path in paths:
        path.touch()
    # The overlap protocol lists a file twice: in training and in test.
    message = _failure([_sample(path) for path in [*paths, *paths]])
    assert message.startswith("5 images cannot be used: ")
    assert all((str(path) in message) == (i < 3) for i, path in enumerate(paths))
    assert "; and 2 more; repair or remove" in message


def test_mask_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    image, mask = _file(tmp_path, "a.png", (6, 4)), _file(tmp_path, "m.png", (3, 4))
    message = _failure([_sample(image, mask)])
    assert f"{mask} has 3x4 pixels (width x height) but its image has 6x4" in message
    array = Sample("cat/b", "cat", "hole", _pixels((4, 6, 3)), _pixels((6, 4)))
    assert "the mask of cat/b has 4x6 pixels" in _failure([array])


def test_arrays_of_wrong_shape_are_named() -> None:
    message = _failure([Sample("cat/b", "cat", None, _pixels((4, 6)))])
    assert "cat/b: the image must be uint8 [H, W, 3], got uint8 [4, 6]" in message


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "bomb.png", (20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    message = _failure([_sample(path)])
    assert f"{path} is too large to be decoded safely" in message
