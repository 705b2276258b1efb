from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.__main__ import main
from tests.meds_plugin.review.made_up import make_metrics, make_run

if TYPE_CHECKING:
    from pathlib import Path


def test_builds_applies_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"])
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'review.html'} (0.")
    file = tmp_path / "decisions.csv"
    file.write_text("path,category,decision\na.png,wood,drop\n")
    assert main([str(run), "--apply", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run / 'exclude.csv'} leaves out 1 images. To train again:"
    assert lines[1].startswith("python -m meds_plugin.run --config-path ")
    assert lines[3] == f"python -m meds_plugin.review {run} --compare {run}_reviewed"
    make_metrics(run, 0.5)
    assert main([str(run), "--compare", str(run)]) == 0
    assert "mean change" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: RUN"),
        (["{}/none"], "holds no finished run"),
        (["{}/run", "--output", "x"], "--output goes with --apply"),
        (["{}/run", "--apply", "{}/none.csv"], "none.csv cannot be read"),
        (["{}/run", "--apply", "{}/none.csv", "--compare", "{}/run"], "not allowed with"),
        (["{}/run", "--compare", "{}/none"], "metrics.json is missing"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    make_metrics(make_run(tmp_path / "run", ["a.png", "b.png"]), 0.5)
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("meds_plugin: ")
    assert says in err
