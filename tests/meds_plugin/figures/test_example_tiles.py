from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from meds_plugin.figures.example_tiles import tiles_figure
from meds_plugin.figures.style import styled
from meds_plugin.runs.collection import read_run
from meds_plugin.utils.atomic import write_arrays
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def test_tiles_share_one_scale(tmp_path: Path) -> None:
    with styled():
        figure = tiles_figure(read_run(write_run(tmp_path / "0")))
    assert figure is not None
    maps = [image for axis in figure.axes for image in axis.images if image.cmap.name == "inferno"]
    assert len(maps) == 3
    assert {image.get_clim() for image in maps} == {(0.0, 2.0)}
    assert any(text.get_text() == "unknown" for axis in figure.axes for text in axis.texts)
    assert tiles_figure(read_run(write_run(tmp_path / "1", method="plain"))) is None


@pytest.mark.parametrize(("count", "height", "width"), [(9, 200, 60), (13, 60, 200), (1, 60, 60)])
def test_long_names_do_not_run_into_each_other(
    tmp_path: Path, count: int, height: int, width: int
) -> None:
    run = write_run(tmp_path / "0")
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "images": np.zeros((count, height, width, 3), np.uint8),
        "masks": np.zeros((count, height, width), np.uint8),
        "maps": np.zeros((count, 8, 8), np.float16),
        "scale": np.array([0, 1], np.float32),
        "paths": np.array([f"test/WWW scratch/camera_left_2024_{i:09d}.png" for i in range(count)]),
        "categories": np.array(["moulded capsules of the second line"] * count),
    }
    write_arrays(run / "examples.npz", arrays)
    with styled():
        figure = tiles_figure(read_run(run))
        assert figure is not None
        figure.draw_without_rendering()
        titles = [axis.title for axis in figure.axes if axis.get_title()]
        boxes = [title.get_window_extent() for title in titles]
    assert len(titles) == count
    assert all(title.get_text().startswith("moulded") for title in titles)
    assert all("\nWWW scratch\n" in title.get_text() for title in titles)
    assert all(title.get_text().endswith(f"{i:03d}.png") for i, title in enumerate(titles))
    assert not [one for one, two in combinations(boxes, 2) if one.overlaps(two)]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
