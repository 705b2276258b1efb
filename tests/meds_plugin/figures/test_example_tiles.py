from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.figures.example_tiles import tiles_figure
from meds_plugin.runs.collection import read_run
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def test_tiles_share_one_scale(tmp_path: Path) -> None:
    figure = tiles_figure(read_run(write_run(tmp_path / "0")))
    assert figure is not None
    maps = [image for axis in figure.axes for image in axis.images if image.cmap.name == "inferno"]
    assert len(maps) == 3
    assert {image.get_clim() for image in maps} == {(0.0, 2.0)}
    assert any(text.get_text() == "unknown" for axis in figure.axes for text in axis.texts)
    assert tiles_figure(read_run(write_run(tmp_path / "1", method="plain"))) is None
