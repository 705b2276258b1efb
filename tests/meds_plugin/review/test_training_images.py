from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from meds_plugin.review.build import rebuild_review
from meds_plugin.review.thumbnails import make_thumbnails
from meds_plugin.review.training_images import find_training_images
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run, page_data

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_that_stored_nothing_shows_the_files_that_still_exist(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for place in range(2):
        Image.fromarray(np.full((20, 40, 3), 90, np.uint8)).save(root / f"{place}.png")
    names = ["0.png", "missing.png", "1.png#2", "1.png"]
    run = make_run(tmp_path / "run", names, stored=False, root=root)
    assert [each[1:] for each in make_thumbnails(find_training_images(run, names))] == [
        (40, 20),
        (0, 0),
        (40, 20),
        (40, 20),
    ]
    found = page_data(run)
    assert found["maps"] is None
    assert [bool(count) for count in found["bytes"]] == [True, False, True, True]


def test_without_the_data_no_image_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"], stored=False)
    assert page_data(run)["bytes"] == [0, 0]


def test_needs_the_runs_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"], stored=False)
    for text in ("- a\n", "a: [", "seed: 0\n"):
        (run / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=r"config\.yaml"):
            rebuild_review(run)
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        rebuild_review(run)
