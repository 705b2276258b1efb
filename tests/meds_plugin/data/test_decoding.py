from __future__ import annotations

import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data import decoding
from meds_plugin.data.decoding import MAX_PIXELS, checked_limit, decode
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# As set on import, which pytest undoes.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL.TiffImagePlugin")

KINDS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP"}
KINDS |= {"gif": "GIF", "ppm": "PPM", "jp2": "JPEG2000"}


def _write(path: Path, kind: str = "PNG", size: tuple[int, int] = (6, 4), **options: Any) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3))
    Image.fromarray(values.astype(np.uint8)).save(path, kind, **options)
    return path


def _refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        decode(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_content_decides_on_the_format(tmp_path: Path, kind: str) -> None:
    for suffix in KINDS:
        decoded = decode(_write(tmp_path / f"a.{suffix}", kind))
        assert decoded.image.size == (6, 4)
        assert (decoded.bits, decoded.inverted) == (8, False)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    for kind in ("TGA", "ICO", "DDS"):
        message = _refusal(_write(tmp_path / "a.png", kind))
        assert message.startswith(
            "is not a PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 image"
        )


@pytest.mark.parametrize("kind", [*KINDS.values(), "WEBP lossless", "WEBP extended"])
def test_too_large_images_are_refused_before_their_pixels_are_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, how = kind.partition(" ")
    options: dict[str, Any] = {"lossless": how == "lossless"} if name == "WEBP" else {}
    if how == "extended":
        options["exif"] = Image.Exif()
        options["exif"][0x0110] = "camera"
    path = _write(tmp_path / "a.img", name, (30, 20), **options)
    assert decode(path, max_pixels=600).image.size == (30, 20)

    def fail(*_: object) -> None:
        raise AssertionError

    for reader in {reader for _, reader in decoding._READERS}:
        monkeypatch.setattr(reader, "load", fail)
    assert _refusal(path, max_pixels=599) == (
        "has 30x20 pixels, more than data.max_pixels=599: "
        "make it smaller, or allow it with data.max_pixels=600"
    )


@pytest.mark.parametrize("kind", KINDS.values())
def test_pillows_own_limit_does_not_count(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.img", kind, (30, 20))
    monkeypatch.setattr(decoding, "_HUGE", 500)
    for pillows in (10, 500):  # an error beyond 20 pixels; a warning for 600 pixels
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with ThreadPoolExecutor(4) as pool:
                decoded = list(pool.map(decode, [path] * 12))
        assert {one.image.size for one in decoded} == {(30, 20)}
        assert pillows == Image.MAX_IMAGE_PIXELS
    assert Image.MAX_IMAGE_PIXELS == 500


def test_pillows_limit_is_back_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.png", size=(30, 20))
    path.write_bytes(path.read_bytes()[:200])
    monkeypatch.setattr(decoding, "_HUGE", 500)
    before = Image.MAX_IMAGE_PIXELS
    assert before is not None
    assert "is cut off or damaged" in _refusal(path)
    assert before == Image.MAX_IMAGE_PIXELS


def test_limits() -> None:
    assert checked_limit(1e9) == 1_000_000_000
    assert checked_limit(MAX_PIXELS) == 100_000_000
    for wrong in (0, -1, True, "10", None, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^data.max_pixels must be a number of pixels"):
            checked_limit(wrong)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "the camera's maker, long enough to lie elsewhere"
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_leaves_the_image_as_it_is(tmp_path: Path, kind: str) -> None:
    whole = _exif(6)
    assert decode(_write(tmp_path / "a.img", kind, exif=whole)).image.size == (4, 6)
    broken = {
        "unknown turn": _exif(99),
        "cut off": whole[:17],
        "no directory": whole[:10] + b"\xff\xff\xff\xff" + whole[14:],
        "zeros": b"Exif\0\0" + bytes(40),
        "text": b"Exif\0\0 no such thing here",
    }
    for what, exif in broken.items():
        path = _write(tmp_path / "b.img", kind, exif=exif)
        assert decode(path).image.size == (6, 4), what


def _tiff(exif: tuple[int, int, int]) -> bytes:
    """Return an image of 6x4 pixels to be turned, with an entry (type, count, value) for EXIF."""
    pixels = bytes(range(72))
    after = 8 + len(pixels) + 2 + 11 * 12 + 4
    numbers = {256: 6, 257: 4, 259: 1, 262: 2, 273: 8, 274: 6, 277: 3, 278: 4, 279: len(pixels)}
    entries = {tag: (3, 1, number) for tag, number in numbers.items()}
    entries |= {258: (3, 3, after), 0x8769: exif}
    directory = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    count = struct.pack("<H", len(entries))
    return b"II*\0" + struct.pack("<I", 80) + pixels + count + directory + bytes(4) + b"\x08\0" * 3


def test_broken_exif_in_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for kind in (1, 2, 4, 7, 9, 13, 16):
        for count in (0, 1, 2, 4):
            for value in (0, 1, 8, 80, 0x7FFFFFFF, 0xFFFFFFFF):
                path.write_bytes(_tiff((kind, count, value)))
                decoded = decode(path)
                assert decoded.image.size == (4, 6)
                assert decoded.image.getpixel((3, 0)) == (0, 1, 2)


@pytest.mark.parametrize("kind", [*KINDS.values(), "TIFF tiff_lzw"])
def test_cut_files_are_refused(tmp_path: Path, kind: str) -> None:
    name, _, compression = kind.partition(" ")
    options = {"compression": compression} if compression else {}
    path = _write(tmp_path / "a.img", name, (40, 30), **options)
    whole = path.read_bytes()
    for kept in (3, 13, 20, 31, len(whole) // 3, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:kept])
        message = _refusal(path)
        assert message.startswith(("is cut off or damaged (", "is not a PNG, JPEG")), kept


def test_grey_of_more_than_8_bits_in_other_formats(tmp_path: Path) -> None:
    values = np.array([[0, 4095, 2048]])
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 4095\n" + values.astype(">u2").tobytes())
    Image.fromarray(np.array(values * 16, np.uint16)).save(tmp_path / "a.jp2")
    for name in ("a.pgm", "a.jp2"):
        image, bits, inverted, _ = decode(tmp_path / name)
        assert (bits, inverted) == (16, False)
        np.testing.assert_allclose(np.asarray(image), values * 16, atol=16)  # white is 65535 in PGM


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_floats(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).random((5, 7, channels)).astype(np.float32)
    for order in "<>":
        path = write_float_tiff(tmp_path / "a.tif", values.astype(f"{order}f4"))
        image, depth, _, colours = decode(path, max_pixels=35)
        assert (image.size, depth) == ((7, 5), 32)
        np.testing.assert_array_equal(colours, values[..., :3])
        with pytest.raises(
            UserError, match=r"a\.tif has 7x5 pixels, more than data\.max_pixels=34"
        ):
            decode(path, max_pixels=34)
        path.write_bytes(path.read_bytes()[:-40])
        assert _refusal(path).startswith("is cut off or damaged (")


@pytest.mark.parametrize(
    "tags", [{259: 8}, {284: 2}, {274: 6}, {258: 64}, {339: 1}, {284: 2, 258: 16, 339: 1}]
)
def test_other_deep_colours_are_no_damage(tmp_path: Path, tags: dict[int, int]) -> None:
    path = write_float_tiff(tmp_path / "a.tif", np.zeros((5, 7, 3), "<f4"), tags)
    assert _refusal(path).startswith("is of an unsupported kind (unknown pixel mode")


def write_float_tiff(path: Path, values: NDArray[Any], tags: dict[int, int] | None = None) -> Path:
    """Write a TIFF of floats in colour by hand: Pillow writes none."""
    height, width, channels = values.shape
    order, magic = ("<", b"II*\0") if values.dtype.str[0] == "<" else (">", b"MM\0*")
    bits = values.itemsize * 8
    own = {256: width, 257: height, 258: bits, 259: 1, 262: 2, 273: 0, 277: channels, 278: height}
    own |= {279: values.nbytes, 284: 1, 339: 3, **(tags or {})}
    own |= {338: 2} if channels == 4 else {}
    after = 8 + 2 + 12 * len(own) + 4
    own[273] = after + 2 * 2 * channels
    lists = b""
    entries = b""
    for tag, value in sorted(own.items()):
        count = channels if tag in (258, 339) else 1
        if count > 1:
            entries += struct.pack(f"{order}HHII", tag, 3, count, after + len(lists))
            lists += struct.pack(f"{order}{count}H", *[value] * count)
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = magic + struct.pack(f"{order}IH", 8, len(own)) + entries + bytes(4)
    path.write_bytes(head + lists + values.tobytes())
    return path


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert _refusal(tmp_path / "folder.png").startswith("is a folder, not a file: ")
    os.mkfifo(tmp_path / "pipe.png")
    assert _refusal(tmp_path / "pipe.png").startswith("is a pipe or a device, not a file: ")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert _refusal(tmp_path / "zero.png").startswith("is a pipe or a device, not a file: ")


def test_links_and_absent_files(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "gone.png").startswith("does not exist: ")
    (tmp_path / "dangling.png").symlink_to("elsewhere.png")
    assert _refusal(tmp_path / "dangling.png").startswith("is a link to elsewhere.png, which does")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert _refusal(tmp_path / "loop.png").startswith("is a link that leads back to itself: ")
    (tmp_path / "empty.png").touch()
    assert _refusal(tmp_path / "empty.png").startswith("is empty (zero bytes): ")
    assert _refusal(tmp_path / "empty.png" / "x.png").startswith("cannot be read (Not a directory)")
    assert _refusal(tmp_path / ("x" * 300)).startswith("cannot be read (File name too long)")
    with pytest.raises(UserError, match=r"x\\x00.png' is cut off or damaged .*null byte"):
        decode(tmp_path / "x\0.png")
    (tmp_path / "fine.png").symlink_to(_write(tmp_path / "real.png"))
    assert decode(tmp_path / "fine.png").image.size == (6, 4)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system knows no such permissions")
def test_missing_permissions(tmp_path: Path) -> None:
    path = _write(tmp_path / "secret.png")
    assert decode(path).image.size == (6, 4)  # loads what only root may read here
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nothing is forbidden to root
    try:
        message = _refusal(path)
    finally:
        os.seteuid(user)
        path.chmod(0o600)
    assert message == "cannot be read (permission denied): check its permissions"


def test_names_stay_in_one_line(tmp_path: Path) -> None:
    for name in ("line\nbreak.png", "tab\t\r.png", "\x1b[31m.png", os.fsdecode(b"caf\xe9.png")):
        with pytest.raises(UserError) as caught:
            decode(tmp_path / name)
        message = str(caught.value)
        assert message.isprintable()
        assert message.isascii()
        assert "does not exist" in message
    assert _refusal(tmp_path / "naïve 'name' 漢字.png").startswith("does not exist")


def test_any_failure_of_a_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.png")
    reader = decoding._READERS[0][1]
    for error in (MemoryError(), RecursionError("deep"), OverflowError("large"), EOFError("\n")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(reader, "load", fail)
        cause = str(error).strip() or type(error).__name__
        assert _refusal(path).startswith(f"is cut off or damaged ({cause}): ")
