"""Dropped images put aside and brought back, also when interrupted."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.check import content_digest
from meds_plugin.data.samples import Sample
from meds_plugin.review.quarantine import fill
from meds_plugin.review.quarantine.fill import quarantine
from meds_plugin.review.quarantine.restore import restore
from meds_plugin.review.training_images import SourceImages
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run
from tests.meds_plugin.review.photos import decide, photo_run

if TYPE_CHECKING:
    from meds_plugin.review.quarantine.manifest import How

# Training images with the same name in two folders, injected test images, and repeats of them.
TEST = "test/bad/0.png"
NAMES = [TEST, f"{TEST}#2", "nut/0.png", "bolt/0.png", "f\r\ng #1.png", "kept.png"]
TRAINED = NAMES[2:5]
HOW: tuple[How, ...] = ("copy", "link", "move")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return photo_run(tmp_path, NAMES, tests=[TEST, "test/bad/1.png"])


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    words = dict.fromkeys(NAMES[:-1], "drop") | {"nut/0.png": "drop:dirt", "kept.png": "keep"}
    return decide(tmp_path / "d.csv", words)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if not path.is_dir())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def refused(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        quarantine(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("how", ["copy", "link"])
def test_copies_and_links_leave_the_data_as_it_is(
    run: Path, drop: Path, tmp_path: Path, how: How
) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    before = files(photos)
    done = quarantine(run, drop, aside, how)
    assert (done.files, done.left, files(photos)) == (4, [], before)
    put = files(aside)
    rows = read_rows(aside / "manifest.csv")
    del put["manifest.csv"]
    assert put == {name: before[name] for name in [TEST, *TRAINED]}
    assert {(aside / name).is_symlink() for name in put} == {how == "link"}
    # A repeat stands for its original, which is there once.
    assert [(row["name"], row["rank"]) for row in rows] == [
        (TEST, "1"),
        ("nut/0.png", "3"),
        ("bolt/0.png", "4"),
        ("f\r\ng #1.png", "5"),
    ]
    assert rows[1] == {
        "path": "nut/0.png",
        "source": str(photos / "nut/0.png"),
        "how": how,
        "name": "nut/0.png",
        "category": "wood",
        "rank": "3",
        "score": "0.6666667",
        "probability": "",
        "decision": "drop",
        "note": "dirt",
        "digest": content_digest(before["nut/0.png"]),
    }
    assert quarantine(run, drop, aside, how) == done
    with pytest.raises(UserError, match="holds no moved files"):
        restore(run, aside)


def test_a_move_leaves_test_images_and_is_taken_back(run: Path, drop: Path, tmp_path: Path) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    before = files(photos)
    done = quarantine(run, drop, aside, "move")
    assert (done.files, done.left) == (3, [TEST])
    assert files(photos) == {n: c for n, c in before.items() if n not in TRAINED}
    assert {n: c for n, c in files(aside).items() if n != "manifest.csv"} == {
        name: before[name] for name in TRAINED
    }
    assert quarantine(run, drop, aside, "move") == done
    assert restore(run, aside) == 3
    assert files(photos) == before
    assert restore(run, aside) == 3
    assert [*files(aside)] == ["manifest.csv"]
    assert quarantine(run, drop, aside, "move") == done


def test_a_repeat_alone_stands_for_its_original(run: Path, tmp_path: Path) -> None:
    drop = decide(tmp_path / "d.csv", {f"{TEST}#2": "drop"})
    assert quarantine(run, drop, tmp_path / "moved", "move") == (0, [TEST])
    assert not (tmp_path / "moved").exists()
    assert quarantine(run, drop, tmp_path / "copied", "copy") == (1, [])
    assert (tmp_path / "copied" / TEST).is_file()


def test_what_is_dropped_later_is_added(run: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    quarantine(run, decide(tmp_path / "d.csv", {"nut/0.png": "drop"}), aside, "move")
    quarantine(run, decide(tmp_path / "d.csv", {"bolt/0.png": "drop"}), aside, "move")
    assert [row["name"] for row in read_rows(aside / "manifest.csv")] == ["nut/0.png", "bolt/0.png"]
    assert restore(run, aside) == 2


@pytest.mark.parametrize("across", [False, True], ids=["one disk", "two disks"])
def test_an_interrupted_move_is_finished_or_taken_back(
    run: Path, drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, across: bool
) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    before = files(photos)
    rename, unlink = Path.rename, Path.unlink
    calls: list[Path] = []

    def interrupted(path: Path, target: Path | None = None, **_: bool) -> None:
        if path.suffix == ".tmp":
            unlink(path, missing_ok=True)
            return
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        if target is None:
            unlink(path)
        else:
            rename(path, target)

    def other_disk(path: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another disk")

    if across:
        monkeypatch.setattr(Path, "rename", other_disk)
    monkeypatch.setattr(Path, "unlink" if across else "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quarantine(run, drop, aside, "move")
    # Every file is somewhere, whole, and the manifest knows of it.
    everything = {content for folder in (photos, aside) for content in files(folder).values()}
    assert set(before.values()) <= everything
    assert len(read_rows(aside / "manifest.csv")) == 3
    calls.extend([Path(), Path()])
    assert quarantine(run, drop, aside, "move").files == 3
    assert not any((photos / name).exists() for name in TRAINED)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        restore(run, aside)
    calls.extend([Path(), Path()])
    assert restore(run, aside) == 3
    assert files(photos) == before
    assert [*files(aside)] == ["manifest.csv"]


@pytest.mark.parametrize("how", HOW)
def test_nothing_is_overwritten(run: Path, drop: Path, tmp_path: Path, how: How) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    before = files(photos)
    (aside / "bolt").mkdir(parents=True)
    (aside / "bolt/0.png").write_text("another file")
    assert "nothing was touched: " in (message := refused(run, drop, aside, how))
    assert f"{aside / 'bolt/0.png'} is in the way" in message
    assert files(photos) == before
    assert files(aside) == {"bolt/0.png": b"another file"}


def test_a_restore_overwrites_nothing(run: Path, drop: Path, tmp_path: Path) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    quarantine(run, drop, aside, "move")
    for spoil, says in (
        (photos / "nut/0.png", "nut/0.png is in the way"),
        (aside / "bolt/0.png", "bolt/0.png was changed"),
    ):
        content = spoil.read_bytes() if spoil.exists() else None
        spoil.write_text("another file")
        now = files(tmp_path)
        with pytest.raises(UserError, match=says):
            restore(run, aside)
        assert files(tmp_path) == now
        spoil.unlink() if content is None else spoil.write_bytes(content)
    (aside / "bolt/0.png").unlink()
    with pytest.raises(UserError, match=r"bolt/0\.png is missing"):
        restore(run, aside)
    assert not (photos / "nut/0.png").exists()


def test_a_file_that_changed_since_the_run_is_not_taken(
    run: Path, drop: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos" / "nut/0.png").write_bytes(b"another image")
    for how in HOW:
        message = refused(run, drop, tmp_path / "aside", how)
        assert "nut/0.png was changed since the run" in message
    (tmp_path / "photos" / "nut/0.png").unlink()
    assert "nut/0.png is no longer in the data set" in refused(run, drop, tmp_path / "aside")
    assert not (tmp_path / "aside").exists()


def test_a_quarantine_is_of_one_kind_and_of_one_data_set(
    run: Path, drop: Path, tmp_path: Path
) -> None:
    photos, aside = tmp_path / "photos", tmp_path / "aside"
    for inside in (photos, photos / "aside"):
        assert "lies in the data set's folder" in refused(run, drop, inside)
    quarantine(run, drop, aside)
    assert "was filled by copy, not by move" in refused(run, drop, aside, "move")
    other = photo_run(tmp_path / "other", NAMES, tests=[TEST, "test/bad/1.png"])
    assert "was put there from another place" in refused(other, drop, aside)
    moved = tmp_path / "moved"
    quarantine(run, drop, moved, "move")
    with pytest.raises(UserError, match="is not in the data set of"):
        restore(other, moved)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("path", "../evil.png", "leads outside"),
        ("path", "/etc/passwd", "leads outside"),
        ("path", "link/x.png", "leads outside"),
        ("source", "/etc/passwd", "is not in the data set"),
        ("source", "nut/0.png", "is not in the data set"),
        ("how", "delete", "is not one of copy, link, move"),
        ("digest", "", "was changed"),
    ],
)
def test_a_forged_manifest_is_refused(
    run: Path, drop: Path, tmp_path: Path, column: str, value: str, says: str
) -> None:
    aside = tmp_path / "aside"
    quarantine(run, drop, aside, "move")
    (aside / "link").symlink_to(tmp_path)
    text = (aside / "manifest.csv").read_text()
    row = read_rows(aside / "manifest.csv")[0]
    line = ",".join(row.values())
    forged = text.replace(line, ",".join((row | {column: value}).values()))
    assert forged != text
    (aside / "manifest.csv").write_text(forged)
    now = files(tmp_path)
    with pytest.raises(UserError, match=says):
        restore(run, aside)
    assert files(tmp_path) == now
    (aside / "manifest.csv").write_text("path,source\n")
    with pytest.raises(UserError, match="has no column how"):
        restore(run, aside)


def test_links_and_files_outside_the_data_are_not_moved(tmp_path: Path) -> None:
    run = photo_run(tmp_path, ["a.png", "sub/b.png", "c.png"])
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (photos / "a.png").rename(elsewhere / "a.png")
    (photos / "a.png").symlink_to(elsewhere / "a.png")
    (photos / "sub").rename(elsewhere / "sub")
    (photos / "sub").symlink_to(elsewhere / "sub")
    drop = decide(tmp_path / "d.csv", {"a.png": "drop", "sub/b.png": "drop"})
    message = refused(run, drop, tmp_path / "aside", "move")
    assert f"{photos / 'a.png'} is a link, which is not moved" in message
    assert f"{photos / 'sub/b.png'} lies outside {photos}" in message
    assert quarantine(run, drop, tmp_path / "aside", "copy").files == 2
    assert not (tmp_path / "aside" / "a.png").is_symlink()


def test_images_made_in_code_are_copied_as_png_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    names = ["a/0.png", "b/0", "kept.png"]
    samples = {n: Sample(n, "wood", None, p) for n, p in zip(names, pixels, strict=True)}
    monkeypatch.setattr(
        fill, "find_source_images", lambda _: SourceImages(samples, frozenset(), None, 0)
    )
    run = make_run(tmp_path / "run", names)
    drop = decide(tmp_path / "d.csv", {"a/0.png": "drop", "b/0": "drop"})
    assert "leave out --move" in refused(run, drop, tmp_path / "aside", "move")
    assert "has no file to link" in refused(run, drop, tmp_path / "aside", "link")
    assert quarantine(run, drop, tmp_path / "aside").files == 2
    for name, array in zip(("a/0.png", "b/0.png"), pixels, strict=False):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "aside" / name)), array)
    assert quarantine(run, drop, tmp_path / "aside").files == 2


def test_a_link_in_the_quarantine_does_not_lead_out_of_it(
    run: Path, drop: Path, tmp_path: Path
) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "aside" / "bolt").symlink_to(tmp_path / "elsewhere")
    for how in HOW:
        assert "bolt/0.png leads outside" in refused(run, drop, tmp_path / "aside", how)
    assert files(tmp_path / "elsewhere") == {}


def test_a_file_in_place_of_a_folder(run: Path, drop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(run, drop, tmp_path / "file")
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "bolt").write_text("")
    message = refused(run, drop, tmp_path / "aside")
    assert "cannot be written" in message
    assert "run the command again" in message
