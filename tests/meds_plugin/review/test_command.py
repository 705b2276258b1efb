from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.__main__ import main
from tests.meds_plugin.review.made_up import make_metrics, make_run
from tests.trained import called

if TYPE_CHECKING:
    from pathlib import Path


def test_builds_applies_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"])
    status, out, _ = called(main, capsys, str(run))
    assert status == 0
    assert out.startswith(f"{run / 'review.html'} (0.")
    file = tmp_path / "decisions.csv"
    file.write_text("path,category,decision\na.png,wood,drop\n")
    status, out, _ = called(main, capsys, str(run), "--apply", str(file))
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{run / 'exclude.csv'} leaves out 1 images. To train again:"
    assert lines[1].startswith("python -m meds_plugin.run --config-path ")
    assert lines[3] == f"python -m meds_plugin.review {run} --compare {run}_reviewed"
    make_metrics(run, 0.5)
    listed = tmp_path / "list.csv"
    status, _, _ = called(main, capsys, f"run={run}", f"apply={file}", f"output={listed}")
    assert (status, listed.read_text()) == (0, (run / "exclude.csv").read_text())
    status, out, _ = called(main, capsys, str(run), "--compare", str(run))
    assert status == 0
    assert "mean change" in out


def test_updates_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png", "c.png"])
    file = tmp_path / "decisions.csv"
    file.write_text("path,category,decision\na.png,wood,drop\n")
    status, out, _ = called(main, capsys, str(run), "--update", str(file), "--at_most", "0.1")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"{run}/review_order.csv: 2 images left, in a new order; 1 dropped, 0 kept"
    assert "no guarantee" in lines[1]
    assert lines[2].startswith(f"{run}/review.html has the new order; import ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "run is missing: python -m meds_plugin.review RUN"),
        (["{}/none"], "holds no finished run"),
        (["{}/run", "--output", "x"], "output goes with apply only"),
        (["{}/run", "--apply", "{}/none.csv"], "none.csv cannot be read"),
        (
            ["{}/run", "--apply", "{}/none.csv", "--compare", "{}/run"],
            "apply and compare do not go together",
        ),
        (["{}/run", "--update", "a", "--apply", "b"], "apply and update do not go together"),
        (["{}/run", "--update", "{}/none.csv"], "--update={}/none.csv cannot be read"),
        (["{}/run", "--update", "a", "at_most=2"], "at_most must be a share in [0, 1), got 2"),
        (["{}/run", "--compare", "{}/none"], "metrics.json is missing"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    make_metrics(make_run(tmp_path / "run", ["a.png", "b.png"]), 0.5)
    status, out, err = called(main, capsys, *(argument.format(tmp_path) for argument in arguments))
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("meds_plugin: ")
    assert says.format(tmp_path) in err
