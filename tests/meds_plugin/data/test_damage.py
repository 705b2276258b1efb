"""A directory with every kind of damage and oddity: each file is read or named, none does more."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.check import check_samples
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.images import read_image
from meds_plugin.data.masks import read_mask
from meds_plugin.data.prepare import BadFilesError
from meds_plugin.data.samples import Sample
from meds_plugin.data.transforms import Preprocess
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# As set on import, which pytest undoes.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL.(Tiff|Png)ImagePlugin")

GREY = np.tile(np.linspace(40, 210, 32).astype(np.uint8), (24, 1))
IMAGE = Image.fromarray(np.dstack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)]))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
BLUE = Image.new("RGB", IMAGE.size, (0, 0, 255))
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95},
    "bmp": {"format": "BMP"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "webp": {"format": "WEBP", "lossless": True},
    "gif": {"format": "GIF"},
    "ppm": {"format": "PPM"},
    "jp2": {"format": "JPEG2000"},
}


def _bytes(image: Image.Image = IMAGE, suffix: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, **{**FORMATS[suffix], **options})
    return out.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def _png(
    width: int = 8,
    height: int = 4,
    *,
    depth: int = 8,
    colour: int = 2,
    rows: bytes | None = None,
    extra: bytes = b"",
    crc: int | None = None,
) -> bytes:
    """Write a PNG file by hand; `rows` are compressed pixels, `crc` is a wrong sum."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    if rows is None:
        samples = {0: 1, 2: 3}.get(colour, 1) * depth // 8
        rows = zlib.compress((b"\0" + b"\x80" * (width * samples)) * height)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + extra
        + _chunk(b"IDAT", rows, crc)
        + _chunk(b"IEND", b"")
    )


def _tiff(width: int, height: int, *, next_directory: int = 0, compression: int = 1) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1}
    entries |= {278: height, 279: 16}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    tail = struct.pack("<H", len(entries)) + directory + struct.pack("<I", next_directory)
    return b"II*\0" + struct.pack("<I", 24) + b"\x80" * 16 + tail


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 32, 0, 0, 54) + header + bytes(32)


def _webp(width: int, height: int) -> bytes:
    sizes = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sizes
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"


def _jp2(width: int, height: int) -> bytes:
    content = bytearray(_bytes(suffix="jp2"))
    struct.pack_into(">II", content, content.index(b"ihdr") + 4, height, width)
    return bytes(content)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


GIF = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;"  # a frame of one pixel
LARGE = r"has 20000x20000 pixels, more than data.max_pixels"
DAMAGED = r"is cut off or damaged \(.+\): replace or remove it$"
FOREIGN = r"is not a PNG, JPEG, BMP, TIFF, WebP, GIF, PNM or JPEG 2000 image"

# Files that cannot be used: name, content, what is to be said of it.
BAD: dict[str, tuple[bytes, str]] = {
    **{
        f"cut_{part}.{suffix}": (
            _bytes(NOISE, suffix)[: int(share * len(_bytes(NOISE, suffix)))],
            DAMAGED if share > 0.05 else f"{DAMAGED}|{FOREIGN}",
        )
        for suffix in FORMATS
        for part, share in {"early": 0.02, "third": 0.34, "half": 0.5, "late": 0.8}.items()
    },
    "zero_bytes.png": (b"", r"is empty \(zero bytes\)"),
    "one_byte.jpg": (b"\xff", FOREIGN),
    "zeros.png": (bytes(5000), FOREIGN),
    "text.png": (b"not an image at all\n" * 9, FOREIGN),
    "page.jpg": (b"<html><body>404 Not Found</body></html>", FOREIGN),
    "targa.png": (_bytes(format="TGA"), FOREIGN),
    "movie.webp": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(24), DAMAGED),
    "signature_only.png": (b"\x89PNG\r\n\x1a\n", DAMAGED),
    "start_and_end.jpg": (b"\xff\xd8\xff\xd9", DAMAGED),
    "huge.png": (_png(20_000, 20_000, rows=b""), r"has 20000x20000 pixels, more than data.max_pix"),
    "huge.bmp": (_bmp(20_000, 20_000), r"has 20000x20000 pixels, more than data.max_pixels"),
    "huge.tif": (_tiff(20_000, 20_000), r"has 20000x20000 pixels, more than data.max_pixels"),
    "huge.jpg": (_jpeg(20_000, 20_000), r"has 20000x20000 pixels, more than data.max_pixels"),
    "huge.gif": (b"GIF89a" + struct.pack("<HHBBB", 20_000, 20_000, 0, 0, 0) + GIF, LARGE),
    "huge.pgm": (b"P5 20000 20000 255\n", LARGE),
    "huge.jp2": (_jp2(20_000, 20_000), LARGE),
    "huge.webp": (_webp(20_000, 20_000), r"has 20000x20000 pixels, more than data.max_pixels"),
    "vast.webp": (_webp(1 << 24, 1 << 24), r"has 16777216x16777216 pixels, more than"),
    "vast.tif": (_tiff(2**32 - 1, 2**32 - 1), r"has 4294967295x4294967295 pixels, more than"),
    "vast.bmp": (_bmp(2**31 - 1, 2**31 - 1), r"has 2147483647x2147483647 pixels, more than"),
    "promises.png": (_png(9000, 9000, rows=zlib.compress(b"\0" * 99)), DAMAGED),
    "no_width.png": (_png(0, 5), DAMAGED),
    "no_height.bmp": (_bmp(5, 0), DAMAGED),
    "header_crc.png": (_changed(_bytes(), 17, b"\x07"), DAMAGED),
    "zlib.png": (_png(rows=b"\x78\x9cgarbage that is no deflate stream"), DAMAGED),
    "no_pixels.png": (_png().replace(b"IDAT", b"IDAX"), DAMAGED),
    "text_bomb.png": (
        _png(extra=_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000)))),
        DAMAGED,
    ),
    "unknown_compression.tif": (_tiff(4, 4, compression=4711), DAMAGED),
    "negative_height.bmp": (_bmp(4, -2_000_000), DAMAGED),
    "nan.tif": (
        _bytes(Image.fromarray(np.array([[0.5, np.nan]], np.float32)), "tif"),
        r"has floating-point pixels outside 0..1: save it with 8 or 16 bits, or for images give",
    ),
    "range.tif": (
        _bytes(Image.fromarray(np.array([[0, 70_000]], np.int32)), "tif"),
        r"has 32-bit pixels of unknown range: save it with 8 or 16 bits, or for images give data.r",
    ),
}

# Files that can be used, with the colour of their left edge.
LEFT = (40, 210, 90)
FINE: dict[str, tuple[bytes, tuple[int, int, int]]] = {
    **{f"plain.{suffix}": (_bytes(suffix=suffix), LEFT) for suffix in FORMATS},
    **{
        f"one_pixel.{suffix}": (_bytes(Image.new("RGB", (1, 1), (9, 9, 9)), suffix), (9, 9, 9))
        for suffix in FORMATS
    },
    "png_inside.jpg": (_bytes(), LEFT),
    "gif_inside.png": (_bytes(suffix="gif"), LEFT),
    "film.gif": (_bytes(suffix="gif", save_all=True, append_images=[BLUE]), LEFT),
    "codestream.j2k": (_bytes(suffix="jp2", no_jp2=True), LEFT),
    "plain.pbm": (b"P1 2 2\n0 1 0 0\n", (255, 255, 255)),
    "camera.pgm": (b"P5 2 1 1023\n" + struct.pack(">HH", 512, 1023), (128, 128, 128)),
    "jpeg_inside.png": (_bytes(suffix="jpg"), LEFT),
    "tiff_inside.webp": (_bytes(suffix="tif"), LEFT),
    "line.png": (_png(5000, 1), (128, 128, 128)),
    "column.png": (_png(1, 5000), (128, 128, 128)),
    "wrong_sum.png": (_png(crc=1), (128, 128, 128)),  # the pixels' own sum is right
    "rest_behind.png": (_bytes() + b"rest" * 99, LEFT),
    "rest_behind.jpg": (_bytes(suffix="jpg") + b"rest" * 99, LEFT),
    "broken_exif.jpg": (_bytes(suffix="jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken"), LEFT),
    "half_turned.jpg": (_bytes(suffix="jpg", exif=_exif(3)), (210, 40, 90)),
    "film.png": (_bytes(save_all=True, append_images=[BLUE]), LEFT),
    "film.webp": (_bytes(suffix="webp", save_all=True, append_images=[BLUE]), LEFT),
    "pages.tif": (_bytes(suffix="tif", save_all=True, append_images=[BLUE]), LEFT),
    "endless_pages.tif": (_tiff(4, 4, next_directory=24), (128, 128, 128)),
    "sixteen_bits.png": (_bytes(Image.fromarray(GREY.astype(np.uint16) * 256)), (40, 40, 40)),
    "sixteen_bits.tif": (
        _bytes(Image.fromarray(GREY.astype(np.uint16) * 256), "tif"),
        (40, 40, 40),
    ),
    "sixteen_bits_colour.png": (_png(depth=16), (128, 128, 128)),
    "print.jpg": (_bytes(IMAGE.convert("CMYK"), "jpg"), LEFT),
    "lab.tif": (_bytes(IMAGE.convert("LAB"), "tif"), LEFT),
    "grey.png": (_bytes(IMAGE.convert("L")), (145, 145, 145)),
    "binary.png": (_bytes(Image.fromarray(GREY < 99)), (255, 255, 255)),
    "palette.png": (_bytes(IMAGE.quantize(64), transparency=b"\0" * 64), LEFT),
    "glass.png": (_bytes(Image.merge("RGBA", [*IMAGE.split(), Image.fromarray(GREY)])), LEFT),
    "float.tif": (_bytes(Image.fromarray(GREY / np.float32(255)), "tif"), (40, 40, 40)),
    "name with spaces.png": (_bytes(), LEFT),
    "'single' and \"double\".png": (_bytes(), LEFT),
    "naïve 漢字 🙂.png": (_bytes(), LEFT),
    "line\nbreak.png": (_bytes(), LEFT),
    "-rf $HOME; *,%s {x}.png": (_bytes(), LEFT),
    "l" * 251 + ".png": (_bytes(), LEFT),
}

# What is no regular file: name, how it is made, what is to be said of it.
ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder.png": (Path.mkdir, r"is a folder, not a file"),
    "pipe.png": (os.mkfifo, r"is a pipe or a device, not a file"),
    "endless.png": (lambda path: path.symlink_to("/dev/zero"), r"is a pipe or a device"),
    "dangling.png": (lambda path: path.symlink_to("gone/a.png"), r"is a link to gone/a.png, which"),
    "itself.png": (lambda path: path.symlink_to(path.name), r"is a link that leads back to itself"),
    "circle_1.png": (lambda path: path.symlink_to("circle_2.png"), r"leads back to itself"),
    "circle_2.png": (lambda path: path.symlink_to("circle_1.png"), r"leads back to itself"),
    "removed.png": (lambda _: None, r"does not exist"),
    "latin_\udce9.png": (lambda path: _write(path, _bytes()), r"is not UTF-8"),
    "line\nbreak_empty.png": (Path.touch, r"is empty \(zero bytes\)"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("dämaged files")
    for name, (content, _) in {**BAD, **FINE}.items():
        _write(root / name, content)
    for name, (make, _) in ODD.items():
        make(root / name)
    yield root
    (root / "pipe.png").unlink()


def _samples(folder: Path) -> list[Sample]:
    return [Sample(name, "x", None, folder / name) for name in [*BAD, *FINE, *ODD]]


def test_each_is_read_or_named(folder: Path) -> None:
    samples = _samples(folder)
    assert len(samples) > 90
    report = check_samples(samples)
    # Names are looked at elsewhere (see `prepare`).
    wanted = {name: why for name, (_, why) in {**BAD, **ODD}.items() if "UTF-8" not in why}
    assert [problem.path for problem in report.problems] == list(wanted)
    for problem, reason in zip(report.problems, wanted.values(), strict=True):
        assert re.search(reason, problem.reason), problem.reason
        assert problem.reason.isprintable()
        stem = problem.path.split(".")[0].split("\n")[0]
        assert stem in problem.reason
    fine = [sample.path for sample in samples if sample.path not in report.unusable]
    assert fine == [*FINE, "latin_\udce9.png"]
    message = str(BadFilesError(report.problems))
    assert message.startswith(f"{len(wanted)} images cannot be used: ")
    assert message.isprintable()


@pytest.mark.parametrize("name", FINE)
def test_what_is_read_has_its_pixels(folder: Path, name: str) -> None:
    with Image.open(io.BytesIO(FINE[name][0])) as image:
        size = image.size
    read = read_image(folder / name)
    assert (read.mode, read.size) == ("RGB", size)
    left = np.asarray(read)[:, 0].mean(axis=0)
    np.testing.assert_allclose(left, FINE[name][1], atol=12)
    assert read_mask(folder / name).size == size
    item = ImageDataset([Sample(name, "x", None, folder / name)], Preprocess(16))[0]
    assert item["image"].shape == (3, 16, 16)
    assert bool(item["image"].isfinite().all())


@pytest.mark.parametrize("name", [*BAD, *ODD])
def test_what_is_not_read_says_so_in_one_line(folder: Path, name: str) -> None:
    if "\udce9" in name:
        assert read_image(folder / name).size == IMAGE.size  # only its name is wrong
        return
    for read in (read_image, read_mask):
        with pytest.raises(UserError) as caught:
            read(folder / name)
        assert str(caught.value).isprintable()


def test_damaged_masks_are_named_too(folder: Path) -> None:
    image = folder / "plain.png"
    samples = [Sample(str(n), "x", "cut", image, folder / name) for n, name in enumerate(BAD)]
    report = check_samples(samples)
    assert [problem.path for problem in report.problems] == [sample.path for sample in samples]
    good = [Sample(n, "x", "cut", image, folder / f"plain.{n}") for n in FORMATS]
    assert check_samples(good).problems == []


def test_a_file_of_somebody_else_is_named() -> None:
    user = os.geteuid() if hasattr(os, "geteuid") else None
    if user is None:
        pytest.skip("this system knows no such permissions")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("mine.png", "theirs.png"):
            (folder / file).write_bytes(_bytes())
        samples = [Sample(f, "x", None, folder / f) for f in ("mine.png", "theirs.png")]
        assert check_samples(samples).problems == []
        (folder / "theirs.png").chmod(0)
        if user == 0:
            os.seteuid(65534)  # nothing is forbidden to root
        try:
            report = check_samples(samples)
        finally:
            os.seteuid(user)
    (problem,) = report.problems
    assert problem.reason.endswith(
        "theirs.png cannot be read (permission denied): check its permissions"
    )
    assert report.unusable == {sample.path for sample in samples[1:]}
