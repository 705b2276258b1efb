from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data.noise import contaminate
from meds_plugin.data.samples import Split
from meds_plugin.review.build import rebuild_review
from meds_plugin.review.thumbnails import make_thumbnails
from meds_plugin.review.training_images import data_root, find_source_images, find_training_images
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run, page_data
from tests.meds_plugin.review.photos import photo_run

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


def test_a_repeat_is_turned_and_scaled_as_it_was_trained_on(tmp_path: Path) -> None:
    names = ["a.png", "test/bad/0.png", "test/bad/0.png#2", "test/bad/0.png#3"]
    run = photo_run(tmp_path, names, tests=["test/bad/0.png"])
    found = find_source_images(run)
    split = Split([found.samples["a.png"]], [found.samples["test/bad/0.png"]])
    trained, _ = contaminate(split, 0.75, protocol="overlap_repeat", definition="all", seed=0)
    assert [sample.path for sample in trained.train] == names
    for sample in trained.train:
        assert found.trained(sample.path).variation == sample.variation
    assert found.original("test/bad/0.png#3") is found.samples["test/bad/0.png"]
    assert found.original("test/bad/1.png") is None
    assert found.tests == {str(tmp_path / "photos/test/bad/0.png")}
    assert found.root == data_root(run) == tmp_path / "photos"


def test_a_name_that_looks_like_a_repeat_is_a_name(tmp_path: Path) -> None:
    found = find_source_images(photo_run(tmp_path, ["a.png", "b.png"]))
    (tmp_path / "photos" / "a.png#2").write_bytes(b"")
    assert found.trained("a.png").variation is None
    assert found.original("a.png#x") is found.samples["a.png"]
    assert str(found.trained("a.png#x").image).endswith("missing")


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
