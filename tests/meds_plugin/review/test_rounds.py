from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.exclude import read_exclude
from meds_plugin.review.rounds import apply_decisions, compare_runs, print_comparison
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_metrics, make_run

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["a.png", "b, c.png", 'd "e".png', "f\r\ng.png", " h.png "]
HEAD = "path,category,decision\n"


def decisions(folder: Path, text: str) -> Path:
    file = folder / "decisions.csv"
    file.write_bytes(text.encode())
    return file


def test_the_dropped_images_become_the_exclude_list(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", NAMES)
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}",wood,drop\r\n' for name in NAMES[1:]]
    applied = apply_decisions(run, decisions(tmp_path, HEAD + "a.png,wood,keep\n" + "".join(rows)))
    assert applied.file == run / "exclude.csv"
    assert (applied.dropped, applied.before) == (4, 0)
    assert read_exclude(applied.file) == set(NAMES[1:])
    other = apply_decisions(
        run, decisions(tmp_path, HEAD + "a.png,wood,drop\n"), output=tmp_path / "list.csv"
    )
    assert read_exclude(other.file) == {"a.png"}
    third = apply_decisions(run, decisions(tmp_path, HEAD + "a.png,wood,drop\n"))
    assert third.file == run / "exclude2.csv"
    assert apply_decisions(run, decisions(tmp_path, HEAD + "a.png,wood,drop\n")).file == third.file
    assert read_exclude(run / "exclude.csv") == set(NAMES[1:])


def test_what_an_earlier_review_dropped_stays_out(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.csv"
    earlier.write_text("path,decision\nold.png,drop\na.png,keep\n")
    run = make_run(tmp_path / "run", NAMES, exclude=str(earlier))
    applied = apply_decisions(run, decisions(tmp_path, HEAD + "a.png,wood,drop\n"))
    assert read_exclude(applied.file) == {"old.png", "a.png"}
    assert (applied.dropped, applied.before) == (1, 1)


def test_the_command_takes_everything_else_from_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "it's a run", NAMES)
    drop = decisions(tmp_path, HEAD + "a.png,wood,drop\n")
    applied = apply_decisions(run, drop)
    quoted = str(tmp_path / "it\\'s a run")
    assert shlex.split(applied.command) == [
        "python",
        "-m",
        "meds_plugin.run",
        "--config-path",
        str(run),
        "--config-name",
        "config",
        f"data.exclude='{quoted}/exclude.csv'",
        f"hydra.run.dir='{quoted}_reviewed'",
    ]
    applied.target.mkdir()
    assert apply_decisions(run, drop).target.name == "it's a run_reviewed2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "a.png,wood,drop\nx.png,wood,keep\n", "1 names are no training images"),
        (HEAD + "a.png,wood,dorp\n", "row 2: decision dorp is unknown"),
        (HEAD + "a.png,wood,drop\na.png,wood,keep\n", "contradicts row 2"),
        (HEAD + "a.png,wood,keep\n", "drops no image"),
        (HEAD, "drops no image"),
        ("path,category\na.png,wood\n", "has no column decision"),
        ("name,decision\na.png,drop\n", "has no column path"),
        ("", "has no column path"),
        (HEAD + '"a.png,wood,drop\n', "unexpected end of data"),
        (HEAD + "a.png,wood,drop,x\n", "more cells than the header"),
        (HEAD + "\xff", "no training images"),
    ],
)
def test_wrong_files_are_refused_and_nothing_is_written(
    tmp_path: Path, text: str, says: str
) -> None:
    run = make_run(tmp_path / "run", NAMES)
    with pytest.raises(UserError, match=says) as refused:
        apply_decisions(run, decisions(tmp_path, text))
    assert "--apply=" in str(refused.value)
    assert not (run / "exclude.csv").exists()


def test_a_category_is_not_emptied(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png", "c.png"], categories=("nut", "bolt"))
    with pytest.raises(UserError, match="drops every training image of bolt"):
        apply_decisions(run, decisions(tmp_path, HEAD + "b.png,bolt,drop\n"))


def test_a_list_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", NAMES)
    file = decisions(tmp_path, HEAD + "a.png,wood,drop\n")
    with pytest.raises(UserError, match="--output"):
        apply_decisions(run, file, output=tmp_path / "no" / "where.csv")
    with pytest.raises(UserError, match="holds no finished run"):
        apply_decisions(tmp_path, file)


def test_metrics_of_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    before = make_run(tmp_path / "before", [f"{i}.png" for i in range(16)])
    after = make_run(tmp_path / "after", ["0.png", "1.png", "2.png"])
    make_metrics(before, 0.75)
    make_metrics(after, 0.875)
    lines = compare_runs(before, after).splitlines()
    assert lines[0] == f"before: {before} (16 training images, 2 known to be defective)"
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


def test_a_run_is_compared_with_the_one_whose_review_it_follows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (make_run(tmp_path / name, NAMES) for name in ("before", "after"))
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
    before, after = (make_run(tmp_path / name, NAMES) for name in ("before", "after"))
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
