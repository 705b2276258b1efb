"""A mask is read alike, however it is stored."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from meds_plugin.data.decoding import decode
from meds_plugin.data.masks import MaskReading, array_to_mask, read_mask, to_mask
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

RED, WHITE, BLACK, YELLOW = (255, 0, 0), (255, 255, 255), (0, 0, 0), (255, 255, 0)


def _drawn(size: int = 96, *, scale: int = 1) -> Image.Image:
    """A blob and a scratch, white on black."""
    image = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(image)
    blob, line = (50, 20, 80, 45), (6, 60, 84, 80)
    draw.ellipse([scale * place for place in blob], fill=255)
    draw.line([scale * place for place in line], fill=255, width=3 * scale)
    return image


TRUTH = np.asarray(_drawn()) > 0


def _palette(indices: NDArray[Any], *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([level for colour in colours for level in colour])
    return image


def _two(inside: tuple[int, ...], outside: tuple[int, ...]) -> Image.Image:
    """Colours inside and outside the defect."""
    pixels = np.where(TRUTH[..., None], inside, outside).astype(np.uint8)
    return Image.fromarray(pixels)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress an image, as if it had been a JPEG file before."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _noise(below: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, below, TRUTH.shape)


def _grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


# What tells the defect for certain, and nothing else is possible.
STORED: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: _grey(TRUTH * 255),
    "grey below white": lambda: _grey(TRUTH * 200),
    "labels": lambda: _grey(TRUTH * 1),
    "several labels": lambda: _grey(TRUTH * (1 + _noise(3))),
    "binary": lambda: Image.fromarray(TRUTH),
    "colour": lambda: _two(WHITE, BLACK),
    "red on black": lambda: _two(RED, BLACK),
    "red on white": lambda: _two(RED, WHITE),
    "yellow on white": lambda: _two(YELLOW, WHITE),
    "16 bits": lambda: Image.fromarray(TRUTH * np.uint16(65535)),
    "16-bit labels": lambda: Image.fromarray(TRUTH * np.uint16(700)),
    "alpha, red everywhere": lambda: _two((*RED, 255), (*RED, 0)),
    "alpha, black on transparent": lambda: _two((*BLACK, 255), (*BLACK, 0)),
    "alpha, black on transparent white": lambda: _two((*BLACK, 255), (*WHITE, 0)),
    "alpha, half transparent": lambda: _two((*RED, 100), (*RED, 0)),
    "alpha, opaque": lambda: _two((*WHITE, 255), (*BLACK, 255)),
    "alpha, all zero": lambda: _two((*WHITE, 0), (*BLACK, 0)),
    "alpha, same as grey": lambda: _two((*WHITE, 255), (*BLACK, 0)),
    "alpha, several colours": lambda: Image.merge(
        "RGBA", [*(_grey(60 + _noise(190)) for _ in range(3)), _grey(TRUTH * 255)]
    ),
    "grey and alpha": lambda: Image.merge("LA", [_grey(TRUTH * 0), _grey(TRUTH * 255)]),
    "palette, white and red": lambda: _palette(TRUTH, WHITE, RED),
    "palette, viridis": lambda: _palette(TRUTH, (68, 1, 84), (253, 231, 37)),
    "palette, many labels": lambda: _palette(
        TRUTH * (1 + _noise(250)), *((n % 256, 90, 200) for n in range(256))
    ),
    "palette, black and white": lambda: _palette(TRUTH, BLACK, WHITE),
    "palette, white and black": lambda: _palette(~TRUTH, WHITE, BLACK),
    "noise": lambda: _grey(np.where(TRUTH, 255, _noise(6))),
    "noise on both": lambda: _grey(np.where(TRUTH, 255 - _noise(6), 1 + _noise(6))),
    "JPEG of low quality": lambda: _jpeg(_drawn(), 60),
    **{f"JPEG {q}": lambda q=q: _jpeg(_drawn(), q) for q in (75, 90, 95, 100)},  # type: ignore[misc]
}


@pytest.mark.parametrize("kind", STORED)
def test_what_is_certain_is_read(tmp_path: Path, kind: str) -> None:
    STORED[kind]().save(tmp_path / "mask.png")
    image, doubt = to_mask(decode(tmp_path / "mask.png"), tmp_path / "mask.png")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image) > 0, TRUTH)
    np.testing.assert_array_equal(np.asarray(image) > 127, TRUTH)  # under the rule `half`, too
    assert doubt is None


# Without a defect, nothing tells the others from a mask that is defective all over.
MAY_BE_EMPTY = [
    kind
    for kind in STORED
    if not kind.startswith(("noise", "JPEG")) and "on white" not in kind and "several c" not in kind
]


@pytest.mark.parametrize("kind", MAY_BE_EMPTY)
def test_a_mask_without_a_defect_is_empty(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TRUTH", np.zeros_like(TRUTH))
    STORED[kind]().save(tmp_path / "mask.png")
    assert not np.asarray(read_mask(tmp_path / "mask.png")).any()


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_gif_and_a_palette_with_transparency(tmp_path: Path, transparency: Any) -> None:
    image = _palette(TRUTH, WHITE, BLACK)  # black on transparent
    suffix = "gif" if transparency == 0 else "png"
    image.save(tmp_path / f"mask.{suffix}", transparency=transparency)
    np.testing.assert_array_equal(np.asarray(read_mask(tmp_path / f"mask.{suffix}")) > 0, TRUTH)


@pytest.mark.parametrize("quality", [10, 30, 75])
def test_a_jpeg_file_has_no_grey_edges(tmp_path: Path, quality: int) -> None:
    _drawn().save(tmp_path / "mask.jpg", quality=quality)
    mask = np.asarray(read_mask(tmp_path / "mask.jpg"))
    assert set(np.unique(mask)) == {0, 255}
    assert np.count_nonzero((mask > 0) != TRUTH) < 0.08 * TRUTH.sum()


@pytest.mark.parametrize("colours", [(WHITE, BLACK), (RED, BLACK), (RED, WHITE)])
def test_a_jpeg_file_in_colour(tmp_path: Path, colours: Any) -> None:
    _two(*colours).save(tmp_path / "mask.jpg", quality=75)
    mask = np.asarray(read_mask(tmp_path / "mask.jpg"))
    assert np.count_nonzero((mask > 0) != TRUTH) < 0.12 * TRUTH.sum()  # the scratch is thin


def test_grey_edges_of_resampled_masks_stay_without_doubt() -> None:
    kinds = (Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.BICUBIC)
    for kind in kinds:
        smaller = np.asarray(_drawn(scale=4).resize((128, 128), kind))
        image, doubt = array_to_mask(smaller)
        assert doubt is None, kind
        np.testing.assert_array_equal(np.asarray(image), smaller)
    larger = np.asarray(_drawn().resize((768, 768), Image.Resampling.BILINEAR))
    assert array_to_mask(larger).doubt is None


def _doubt(values: NDArray[Any], **options: Any) -> tuple[Pixels, str]:
    image, doubt = array_to_mask(values.astype(np.uint8), **options)
    assert doubt is not None
    return np.asarray(image), doubt


def test_what_is_not_certain_is_said() -> None:
    inner = np.asarray(_drawn().filter(ImageFilter.MinFilter(3))) > 0
    inner[:50, :] = np.asarray(_drawn().filter(ImageFilter.MinFilter(5)))[:50] > 0
    blob = TRUTH.copy()
    blob[50:] = False
    ignoring = np.where(blob, 255, 0)
    ignoring[blob & inner] = 3
    mask, doubt = _doubt(ignoring)
    assert "labels and 255" in doubt
    np.testing.assert_array_equal(mask > 0, blob & inner)

    for low, high in ((1, 255), (1, 2), (84, 253)):
        mask, doubt = _doubt(np.where(TRUTH, high, low))
        assert "neither of them 0" in doubt
        np.testing.assert_array_equal(mask > 0, TRUTH)

    soft = np.asarray(_drawn(scale=4).filter(ImageFilter.GaussianBlur(25)))
    soft = soft * (255 / soft.max())
    mask, doubt = _doubt(soft)
    assert "grey values away from edges" in doubt
    np.testing.assert_array_equal(mask, soft.astype(np.uint8))  # as ever
    photograph = 20 + _noise(230)
    assert "grey values" in _doubt(photograph)[1]


def _settled(values: Any, stored: NDArray[Any] | Image.Image, tmp_path: Path) -> Pixels:
    image = stored if isinstance(stored, Image.Image) else _grey(stored)
    image.save(tmp_path / "mask.png")
    found = to_mask(decode(tmp_path / "mask.png"), tmp_path / "mask.png", values)
    assert isinstance(found, MaskReading)
    if image.mode == "L":
        array = array_to_mask(np.asarray(image), values)
        np.testing.assert_array_equal(np.asarray(array.image), np.asarray(found.image))
    return np.asarray(found.image)


def test_a_setting_settles_it(tmp_path: Path) -> None:
    full = TRUTH * 255
    levels = np.where(TRUTH, 255, _noise(6))
    np.testing.assert_array_equal(_settled("nonzero", levels, tmp_path), (levels > 0) * 255)
    for low, high in ((0, 1), (1, 2), (5, 255), (84, 253)):
        found = _settled("half", np.where(TRUTH, high, low), tmp_path)
        if low * 2 <= high:
            np.testing.assert_array_equal(found, full)
    np.testing.assert_array_equal(_settled("inverted", ~TRUTH * 255, tmp_path), full)
    np.testing.assert_array_equal(_settled("inverted", ~TRUTH * 1, tmp_path), full)
    edges = np.asarray(_drawn(scale=4).resize((96, 96), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(_settled("inverted", 255 - edges, tmp_path), edges)
    both = _two((*WHITE, 255), (*BLACK, 0))
    both.paste((0, 0, 0, 255), (0, 0, 40, 96))  # some black is visible
    assert not _settled("auto", both, tmp_path)[:, :40].any()
    assert _settled("alpha", both, tmp_path)[:, :40].all()
    palette = _palette(TRUTH, WHITE, BLACK)
    np.testing.assert_array_equal(_settled("auto", palette, tmp_path), ~TRUTH * 255)
    np.testing.assert_array_equal(_settled("nonzero", palette, tmp_path), full)


def test_without_transparency_it_cannot_be_the_mask(tmp_path: Path) -> None:
    _grey(TRUTH * 255).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask\.png has no transparency, which data\.mask_values="):
        read_mask(tmp_path / "mask.png", values="alpha")
    with pytest.raises(UserError, match=r"an array has no transparency"):
        read_mask(np.zeros((3, 3), np.uint8), values="alpha")


def test_mask_takes_the_largest_colour(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    colours[..., 3] = 255
    Image.fromarray(colours).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), colours[..., :3].max(axis=2))


@pytest.mark.parametrize("source", ["grey", "palette", "binary", "16-bit", "32-bit", "array"])
def test_masks_of_labels_become_0_and_255(tmp_path: Path, source: str) -> None:
    labels = np.array([[0, 1], [3, 0]], np.uint8)
    path = tmp_path / ("mask.tif" if source == "32-bit" else "mask.png")
    if source == "palette":
        image = Image.fromarray(labels, "P")
        image.putpalette([level for level in range(256) for _ in range(3)])
        image.save(path)
    elif source != "array":
        kinds: dict[str, NDArray[Any]] = {
            "grey": labels,
            "binary": labels > 0,
            "16-bit": labels.astype(np.uint16),
            "32-bit": labels.astype(np.int32),
        }
        Image.fromarray(kinds[source]).save(path)
    mask = read_mask(labels if source == "array" else path)
    assert np.asarray(mask).tolist() == [[0, 255], [255, 0]]


def test_masks_keep_grey_edges_and_emptiness(tmp_path: Path) -> None:
    for row in ([0, 100, 255], [0, 0, 0]):
        assert np.asarray(read_mask(np.array([row], np.uint8))).tolist() == [row]
        path = tmp_path / "mask.tif"
        for deep in (np.array([row], np.uint16) * 257, np.array([row], np.float32) / 255):
            Image.fromarray(deep).save(path)
            assert np.asarray(read_mask(path)).tolist() == [row]


def test_several_files_are_one_mask(tmp_path: Path) -> None:
    parts = np.zeros((3, 4, 6), np.uint8)
    parts[0, 0, 0], parts[1, 3, 5], parts[1, 0, 0] = 255, 250, 250
    files = tuple(tmp_path / f"{n}.png" for n in range(3))
    for file, part in zip(files, parts, strict=True):
        Image.fromarray(part).save(file)
    assert np.array_equal(np.asarray(read_mask(files)), parts.max(axis=0))
    assert np.array_equal(np.asarray(read_mask(files[:1])), parts[0])
    marked = np.asarray(read_mask(files, values="nonzero"))
    assert np.array_equal(marked, (parts.max(axis=0) > 0) * np.uint8(255))
    Image.new("L", (6, 5)).save(files[2])
    with pytest.raises(UserError, match=r"2.png has 6x5 pixels, unlike the 6x4 of 0.png: give"):
        read_mask(files)
    with pytest.raises(ValueError, match="at least one"):
        read_mask(())
