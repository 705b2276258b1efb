from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.data.links import links_out
from meds_plugin.data.readers import read_csv, read_folder, read_mvtec
from meds_plugin.data.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meds_plugin.data.samples import Split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("root/a.png", "root/sub/b.png", "out/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "root"


def _sample(file: Path, mask: Path | None = None) -> Sample:
    return Sample(file.name, "x", "hole" if mask else None, file, mask)


def test_files_and_links_inside_are_fine(root: Path) -> None:
    (root / "same.png").symlink_to("sub/../a.png")
    (root / "again").symlink_to("sub", target_is_directory=True)
    (root / "itself.png").symlink_to("itself.png")
    (root / "lost.png").symlink_to("nowhere.png")
    names = ("a.png", "sub/b.png", "same.png", "again/b.png", "itself.png", "lost.png", "gone.png")
    assert links_out([_sample(root / name) for name in names], [root]) == {}


def test_every_file_of_a_mask_is_looked_at(root: Path) -> None:
    masks = (root / "a.png", root / "c.png")
    sample = Sample("a", "x", "hole", root / "a.png", masks)
    assert links_out([sample], [root]) == {}
    (root / "c.png").symlink_to("../out/c.png")
    (reason,) = links_out([sample], [root]).values()
    assert reason.startswith(f"{root / 'c.png'} leads outside data.root")


def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(root)
    assert links_out([_sample(tmp_path / "named" / "a.png")], [tmp_path / "named"]) == {}
    assert links_out([_sample(root / "a.png")], [tmp_path / "named"]) == {}


@pytest.mark.parametrize("target", ["../out/c.png", "{out}/c.png", "/etc/passwd", "/nowhere/x.png"])
def test_links_to_files_outside_are_named(root: Path, tmp_path: Path, target: str) -> None:
    (root / "c.png").symlink_to(target.format(out=tmp_path / "out"))
    (reason,) = links_out([_sample(root / "c.png")], [root]).values()
    assert reason.startswith(f"{root / 'c.png'} leads outside data.root, to /")
    assert "data.outside_links=true" in reason


def test_links_to_folders_outside_are_named(root: Path, tmp_path: Path) -> None:
    (root / "in").symlink_to("../out", target_is_directory=True)
    assert list(links_out([_sample(root / "in" / "c.png")], [root])) == ["c.png"]
    assert links_out([_sample(root / "in" / "c.png")], [root, tmp_path / "out"]) == {}


def test_masks_are_looked_at_too(root: Path) -> None:
    (root / "c.png").symlink_to("../out/c.png")
    found = links_out([_sample(root / "a.png", root / "c.png")], [root])
    assert list(found) == ["a.png"]


def test_without_folders_files_may_lie_anywhere(root: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    synthetic = Sample("synthetic", "x", None, pixels)
    assert links_out([_sample(root / ".." / "out" / "c.png")], []) == {}
    assert links_out([synthetic], [root]) == {}


def _table(root: Path) -> Split:
    (root / "list.csv").write_text("path\na.png\nin/c.png\n")
    return read_csv(root / "list.csv")


def _outside(root: Path) -> Split:
    return read_folder(root, test="../out", normal="../out")


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (read_folder, ["in/c.png"]),
        (_table, ["in/c.png"]),
        (partial(read_folder, masks="sub"), ["in/c.png"]),
        (_outside, []),  # named by the user
    ],
)
def test_readers_say_where_files_are_to_lie(
    root: Path, read: Callable[[Path], Split], names: list[str]
) -> None:
    (root / "in").symlink_to("../out", target_is_directory=True)
    split = read(root)
    assert list(links_out([*split.train, *split.test], split.folders)) == names


def test_a_category_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "disk/nut/train/good").mkdir(parents=True)
    (tmp_path / "disk/nut/train/good/0.png").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/nut").symlink_to(tmp_path / "disk/nut")
    split = read_mvtec(tmp_path / "root")
    assert list(links_out(split.train, split.folders)) == ["nut/train/good/0.png"]
