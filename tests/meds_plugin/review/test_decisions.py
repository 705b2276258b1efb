from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from meds_plugin.data.exclude import read_exclude
from meds_plugin.review.decisions import apply_decisions
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run

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
    assert shlex.split(applied.command) == [
        "python",
        "-m",
        "meds_plugin.run",
        "--config-path",
        str(run),
        "--config-name",
        "config",
        f"data.exclude={run}/exclude.csv",
        f"hydra.run.dir={run}_reviewed",
    ]
    applied.target.mkdir()
    assert apply_decisions(run, drop).target.name == "it's a run_reviewed2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "a.png,wood,drop\nx.png,wood,keep\n", "1 names are not training images"),
        (HEAD + "a.png,wood,dorp\n", "row 2: decision dorp is unknown"),
        (HEAD + "a.png,wood,drop\na.png,wood,keep\n", "contradicts row 2"),
        (HEAD + "a.png,wood,keep\n", "drops no image"),
        (HEAD, "drops no image"),
        ("path,category\na.png,wood\n", "has no column decision"),
        ("name,decision\na.png,drop\n", "has no column path"),
        ("", "has no column path"),
        (HEAD + '"a.png,wood,drop\n', "unexpected end of data"),
        (HEAD + "a.png,wood,drop,x\n", "more cells than the header"),
        (HEAD + "\xff", "not training images"),
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
