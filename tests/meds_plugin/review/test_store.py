from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.review.heatmaps import Heatmaps
from meds_plugin.review.store import STORE, ReviewImages, load_review_images, save_review_images
from meds_plugin.review.thumbnails import Thumbnail
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

THUMBS = [Thumbnail(b"abc", 3, 1), Thumbnail(b"", 0, 0), Thumbnail(b"de", 1, 2)]
MAPS = Heatmaps(np.arange(18, dtype=np.uint8).reshape(3, 2, 3), 0.25, 0.75)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    save_review_images(tmp_path, ReviewImages(THUMBS, MAPS, (0.1, 0.2, 0.9, 1.0)))
    found = load_review_images(tmp_path, 3)
    assert found is not None
    assert found.thumbnails == THUMBS
    assert found.window == (0.1, 0.2, 0.9, 1.0)
    assert found.heatmaps is not None
    assert np.array_equal(found.heatmaps.values, MAPS.values)
    assert (found.heatmaps.low, found.heatmaps.high) == (0.25, 0.75)
    save_review_images(tmp_path, ReviewImages(THUMBS, None, (0.0, 0.0, 1.0, 1.0)))
    again = load_review_images(tmp_path, 3)
    assert again is not None
    assert again.heatmaps is None
    assert [path.name for path in tmp_path.iterdir()] == [STORE]


def test_a_run_may_have_stored_nothing(tmp_path: Path) -> None:
    assert load_review_images(tmp_path, 3) is None


def test_a_file_of_other_images_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    save_review_images(tmp_path, ReviewImages(THUMBS, MAPS, (0.0, 0.0, 1.0, 1.0)))
    with pytest.raises(UserError, match="list different images"):
        load_review_images(tmp_path, 4)
    whole = (tmp_path / STORE).read_bytes()
    (tmp_path / STORE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load_review_images(tmp_path, 3)


def test_nothing_in_it_is_unpickled(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, bytes=np.array([{}], object))
    (tmp_path / STORE).write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="is damaged"):
        load_review_images(tmp_path, 1)
