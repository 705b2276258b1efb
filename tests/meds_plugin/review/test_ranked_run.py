from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["ranking.csv", "manifest.csv", "selection.csv"])
def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"])
    whole = (run / name).read_text()
    (run / name).write_text("path,category\na.png,wood\n")
    with pytest.raises(UserError, match=r"is damaged|different images"):
        read_ranked_run(run)
    (run / name).write_text(whole)
    read_ranked_run(run)
    (run / name).unlink()
    with pytest.raises(UserError, match="finished run"):
        read_ranked_run(run)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"])
    ranking = (run / "ranking.csv").read_text()
    (run / "ranking.csv").write_text(ranking.replace("0.5", "nan"))
    with pytest.raises(UserError, match="nan is not a finite number"):
        read_ranked_run(run)
    (run / "ranking.csv").write_text(ranking)
    (run / "contamination.json").write_text('{"mean": {"estimate": NaN}}')
    with pytest.raises(UserError, match="NaN is not a finite number"):
        read_ranked_run(run)


def test_issues_and_near_duplicates_are_read(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    run = make_run(tmp_path / "run", names, issues=(("dark", "blurry"), ()), duplicates=2)
    images = read_ranked_run(run).images
    assert [image.issues for image in images] == [("dark", "blurry"), (), ("dark", "blurry")]
    assert [image.duplicates for image in images] == [1, 1, None]
