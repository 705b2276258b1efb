from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.samples import Sample
from meds_plugin.review.decision_file import Decision
from meds_plugin.review.exchange import entries
from meds_plugin.review.exchange.entries import inner_path, read_entries
from meds_plugin.review.training_images import SourceImages
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run
from tests.meds_plugin.review.photos import SIZE, heat, photo_run

if TYPE_CHECKING:
    from pathlib import Path


def test_images_come_in_the_rankings_order_with_what_is_known(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["c.png", "a.png", "b/d.png"])
    heat(run, "a.png", [(0, 0, 255)])
    heat(run, "c.png", [])
    found = read_entries(run, {"a.png": Decision(drop=True)}, tmp_path / "out")
    assert [(e.rank, e.image.path, e.width, e.height) for e in found.entries] == [
        (1, "c.png", *SIZE),
        (2, "a.png", *SIZE),
        (3, "b/d.png", *SIZE),
    ]
    assert found.folder == tmp_path / "photos"
    assert [found.relative(entry) for entry in found.entries] == ["c.png", "a.png", "b/d.png"]
    first, second, _ = found.entries
    assert (first.regions, first.decision, second.decision) == ([], None, Decision(drop=True))
    # The stored heatmaps cover the middle 7/8 of the image.
    assert second.regions[0][:4] == pytest.approx((1 / 16, 1 / 16, 1 / 32, 1 / 32))
    assert first.facts() == {
        "name": "c.png",
        "category": "wood",
        "rank": 1,
        "score": 1.0,
        "selected": False,
        "memory": 1.0,
    }
    assert not (tmp_path / "out").exists()


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["a.png", "b.png"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "photos" / "a.png", exif=exif)
    found = read_entries(run, {}, tmp_path / "out")
    assert [(entry.width, entry.height) for entry in found.entries] == [(40, 60), (60, 40)]


def test_images_that_are_gone_are_named(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["a.png", "b.png"])
    (tmp_path / "photos" / "a.png").unlink()
    found = read_entries(run, {}, tmp_path / "out")
    assert (found.gone, [e.rank for e in found.entries], found.count) == (["a.png"], [2], 2)
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no training image of .* can be read, for example a\.png"):
        read_entries(run, {}, tmp_path / "out")
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"data\.root"):
        read_entries(run, {}, tmp_path / "out")


def test_repeats_are_written_as_they_were_trained_on(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["a.png#2", "a.png", "a.png#3", "b.png"])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    found = read_entries(run, {}, tmp_path / "out")
    files = {entry.image.path: entry.file for entry in found.entries}
    assert files["a.png"] == tmp_path / "photos" / "a.png"
    assert files["a.png#2"] == tmp_path / "out" / "images" / "a.png#2.png"
    read = [np.asarray(Image.open(file)).tobytes() for file in files.values()]
    assert len(set(read)) == 4
    assert found.folder == tmp_path


def test_images_made_in_code_are_written_as_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["x/a", "../b.png"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    samples = {n: Sample(n, "wood", None, p) for n, p in zip(names, pixels, strict=True)}
    found = SourceImages(samples, frozenset(), None, 0)
    monkeypatch.setattr(entries, "find_source_images", lambda _: found)
    run = make_run(tmp_path / "run", names)
    read = read_entries(run, {}, tmp_path / "out")
    assert [e.file for e in read.entries] == [
        tmp_path / "out" / "images" / "x" / "a.png",
        tmp_path / "out" / "images" / "__" / "b.png",
    ]
    assert np.array_equal(np.asarray(Image.open(read.entries[0].file)), pixels[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        read_entries(run, {}, tmp_path / "file")


def test_a_run_without_heatmaps_has_no_regions(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["a.png", "b.png"])
    assert read_entries(run, {}, tmp_path).mapped
    (run / "review.npz").unlink()
    found = read_entries(run, {}, tmp_path)
    assert not found.mapped
    assert [entry.regions for entry in found.entries] == [[], []]


@pytest.mark.parametrize(
    ("name", "path"),
    [("a/b.jpg", "a/b.jpg"), ("../../a.jpg", "__/__/a.jpg"), ("/a", "a"), ("./a", "a")],
)
def test_a_name_becomes_a_path_below_a_folder(name: str, path: str) -> None:
    assert inner_path(name) == path
    assert inner_path(name, png=True) == f"{path}.png"
    assert inner_path("a.png", png=True) == "a.png"
