from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.decision_file import Decision, read_decisions
from meds_plugin.review.merge import merge_decisions
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import make_run
from tests.meds_plugin.review.photos import decide

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["a.png", "b, c.png", 'd "e".png', "f\r\ng.png", "h.png", "i.png"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", NAMES)


def read(run: Path, file: Path) -> dict[str, Decision]:
    return read_decisions(file, read_ranked_run(run).images)


def test_what_all_say_is_decided_and_conflicts_are_listed(run: Path, tmp_path: Path) -> None:
    words = [
        {NAMES[0]: "drop:dirt", NAMES[1]: "keep", NAMES[2]: "drop", NAMES[3]: "keep"},
        {NAMES[0]: "drop:dust", NAMES[1]: "keep", NAMES[2]: "keep", NAMES[4]: "drop"},
        {NAMES[0]: "drop:dirt", NAMES[3]: "drop", NAMES[5]: "undecided"},
    ]
    files = [decide(tmp_path / f"{n}.csv", each) for n, each in enumerate(words)]
    done = merge_decisions(run, files)
    assert (done.decided, done.shared, done.dropped, done.kept) == (3, 4, 1, 1)
    assert done.conflicts == NAMES[2:4]
    assert read(run, done.file) == {
        NAMES[0]: Decision(drop=True, note="dirt; dust"),
        NAMES[1]: Decision(drop=False),
        NAMES[4]: Decision(drop=True),
    }
    assert done.table is not None
    rows = read_rows(done.table)
    assert rows[1] == {
        "path": NAMES[3],
        "category": "wood",
        "decision": "",
        "score": "0.5",
        str(files[0]): "keep",
        str(files[1]): "",
        str(files[2]): "drop",
    }
    # Once somebody has decided them, they are merged with the rest.
    assert read(run, done.table) == {}
    settled = decide(tmp_path / "settled.csv", {row["path"]: "drop" for row in rows})
    again = merge_decisions(run, [done.file, settled], output=tmp_path / "all.csv")
    assert (again.file, again.decided, again.conflicts, again.table) == (
        tmp_path / "all.csv",
        5,
        [],
        None,
    )


def test_reviewers_of_different_images(run: Path, tmp_path: Path) -> None:
    files = [decide(tmp_path / f"{name}", {name: "keep"}) for name in ("a.png", "h.png")]
    done = merge_decisions(run, files)
    assert (done.decided, done.shared, done.dropped, done.kept) == (2, 0, 0, 0)


def test_earlier_files_stay(run: Path, tmp_path: Path) -> None:
    files = [decide(tmp_path / word, {"a.png": word}) for word in ("drop", "keep")]
    first = merge_decisions(run, files)
    assert merge_decisions(run, files) == first
    assert first.table is not None
    filled = first.table.read_text().replace(",wood,,", ",wood,drop,")
    first.table.write_text(filled)
    second = merge_decisions(run, files)
    assert (first.table.read_text(), second.table) == (filled, run / "decisions_conflicts2.csv")


def test_wrong_input(run: Path, tmp_path: Path) -> None:
    one, two = (decide(tmp_path / name, {"a.png": "keep"}) for name in ("1.csv", "2.csv"))
    stranger = decide(tmp_path / "3.csv", {"x.png": "keep"})
    for files, output, says in (
        ([one], None, "two files or more"),
        ([one, tmp_path / "." / "1.csv"], None, "two files or more"),
        ([one, two], two, "is one of the files to merge"),
        ([one, two], tmp_path / "no" / "x.csv", "cannot be written"),
        ([one, stranger], None, r"--merge=.*3\.csv: 1 names are not training images"),
    ):
        with pytest.raises(UserError, match=says):
            merge_decisions(run, files, output=output)
    assert one.read_text() == two.read_text()
