from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.comparison import compare_runs, print_comparison
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_metrics, make_run

if TYPE_CHECKING:
    from pathlib import Path


def test_metrics_of_two_runs_are_compared(tmp_path: Path) -> None:
    before = make_run(tmp_path / "before", [f"{i}.png" for i in range(16)])
    after = make_run(tmp_path / "after", ["0.png", "1.png", "2.png"])
    make_metrics(before, 0.75)
    make_metrics(after, 0.875)
    lines = compare_runs(before, after).splitlines()
    assert lines[0] == f"before: {before} (16 training images, 2 known to be contaminated)"
    assert lines[1] == f"after:  {after} (3 training images)"
    assert [line.split() for line in lines[2:-1]] == [
        ["category", "I-AUROC", "P-AP"],
        ["wood", "before", "0.750", "-"],
        ["wood", "after", "0.875", "-"],
        ["wood", "change", "0.125", "-"],
        ["mean", "before", "0.750", "-"],
        ["mean", "after", "0.875", "-"],
        ["mean", "change", "0.125", "-"],
    ]
    assert (after / "before_after.csv").read_text().splitlines() == [
        "category,metric,before,after,change",
        "wood,I-AUROC,0.75,0.875,0.125",
        "wood,P-AP,,,",
        "mean,I-AUROC,0.75,0.875,0.125",
        "mean,P-AP,,,",
    ]
    make_metrics(after, 0.875, seed=1)
    assert "the runs differ in more than their images: seed" in compare_runs(before, after)


def test_a_run_is_compared_with_the_reviewed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (make_run(tmp_path / name, ["a.png", "b.png"]) for name in ("before", "after"))
    make_metrics(after, 0.875)
    print_comparison(None, after)
    print_comparison(str(before / "exclude.csv"), after)  # it was never finished
    assert capsys.readouterr().out == ""
    make_metrics(before, 0.75)
    print_comparison(str(before / "exclude.csv"), after)
    assert "wood change" in capsys.readouterr().out
    (before / "metrics.json").write_text("{}")
    print_comparison(str(before / "exclude.csv"), after)
    assert capsys.readouterr().out.startswith(f"not compared with {before}: ")


def test_runs_that_are_not_finished_cannot_be_compared(tmp_path: Path) -> None:
    before, after = (make_run(tmp_path / name, ["a.png", "b.png"]) for name in ("before", "after"))
    make_metrics(before, 0.75)
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        compare_runs(before, after)
    (after / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="is not of a finished run"):
        compare_runs(before, after)
    make_metrics(after, 0.75)
    renamed = (after / "metrics.json").read_text().replace("wood", "nut")
    (after / "metrics.json").write_text(renamed)
    with pytest.raises(UserError, match="no category in common"):
        compare_runs(before, after)
