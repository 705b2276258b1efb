from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.review.__main__ import main
from tests.meds_plugin.review.made_up import make_metrics, make_run
from tests.meds_plugin.review.photos import decide, photo_run
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
    assert lines[0] == f"{run / 'exclude.csv'} leaves out 1 image. To train again:"
    assert lines[1].startswith("python -m meds_plugin.run --config-path ")
    assert lines[3] == f"python -m meds_plugin.review {run} --compare {run}_reviewed"
    make_metrics(run, 0.5)
    listed = tmp_path / "list.csv"
    status, _, _ = called(main, capsys, f"run={run}", f"apply={file}", f"output={listed}")
    assert (status, listed.read_text()) == (0, (run / "exclude.csv").read_text())
    status, out, _ = called(main, capsys, str(run), "--compare", str(run))
    assert status == 0
    assert "mean change" in out


def test_out_into_other_tools_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = photo_run(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "photos" / "d.png").unlink()
    status, out, _ = called(main, capsys, str(run), "--export", "labelstudio")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "left out because they cannot be read (1): d.png"
    tasks = run / "export" / "labelstudio" / "tasks.json"
    assert lines[1].startswith(f"{tasks}, {tasks.with_name('config.xml')}: 3 images, ")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}, " in lines[2]
    status, out, _ = called(main, capsys, str(run), "--import", str(tasks))
    assert (status, out.splitlines()) == (
        0,
        [
            "without a decision (4): a.png, b.png, c.png, ...",
            f"decisions in {run / 'decisions.csv'}: 0. To apply them:",
            f"python -m meds_plugin.review {run} --apply {run / 'decisions.csv'}",
        ],
    )


def test_puts_aside_and_brings_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["test/bad/0.png", "a.png", "b.png"]
    run = photo_run(tmp_path, names, tests=names[:1])
    drop, aside = decide(tmp_path / "d.csv", dict.fromkeys(names[:2], "drop")), tmp_path / "aside"
    where = (str(run), "--apply", str(drop), "--quarantine", str(aside))
    status, out, _ = called(main, capsys, *where, "--move")
    assert (status, out.splitlines()) == (
        0,
        [
            "not moved because they are also test images (1): test/bad/0.png",
            f"moved into {aside}, and listed in its manifest.csv: 1",
            "To move them back:",
            f"python -m meds_plugin.review {run} --restore {aside}",
        ],
    )
    assert not (tmp_path / "photos" / "a.png").exists()
    only = decide(tmp_path / "only.csv", {names[0]: "drop"})
    _, out, _ = called(
        main, capsys, f"run={run}", f"apply={only}", f"quarantine={tmp_path / 'no'}", "move=true"
    )
    assert out.splitlines()[1:] == ["no file is left to move"]
    status, out, _ = called(main, capsys, str(run), "--restore", str(aside))
    assert (status, out) == (0, "moved back: 1\n")
    assert (tmp_path / "photos" / "a.png").exists()
    assert not (run / "exclude.csv").exists()


def test_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png", "c.png"])
    one = decide(tmp_path / "one.csv", {"a.png": "drop", "b.png": "keep", "c.png": "keep"})
    two = decide(tmp_path / "two.csv", {"a.png": "drop", "b.png": "drop"})
    status, out, _ = called(main, capsys, str(run), "--merge", str(one), str(two))
    merged, conflicts = run / "decisions.csv", run / "decisions_conflicts.csv"
    assert (status, out.splitlines()) == (
        0,
        [
            "2 images were decided more than once: 1 agree (50%), 1 drop and 0 keep",
            f"conflicts, left undecided and listed in {conflicts} (1): b.png",
            f"decisions in {merged}: 2. To apply them:",
            f"python -m meds_plugin.review {run} --apply {merged}",
            "To settle the conflicts first, fill in the column decision of their list, then:",
            f"python -m meds_plugin.review {run} --merge {merged} {conflicts}",
        ],
    )


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
        (["{}/run", "--output", "x"], "output goes with apply, export, import, merge only"),
        (["{}/run", "--quarantine", "x"], "quarantine goes with apply only"),
        (["{}/run", "--apply", "x", "--move"], "move goes with quarantine only"),
        (
            ["{}/run", "--apply", "x", "--quarantine", "x", "--link", "--move"],
            "link and move cannot",
        ),
        (["{}/run", "--decisions", "x"], "decisions goes with export only"),
        (["{}/run", "--export", "svg"], "choose from labelstudio, fiftyone, cvat, coco, csv"),
        (["{}/run", "--merge", "a.csv"], "merge takes two files or more"),
        (["{}/run", "--import", "{}/none.json"], "none.json cannot be read"),
        (["{}/run", "--restore", "{}/none"], "manifest.csv cannot be read"),
        (["{}/run", "--restore", "x", "--merge", "y"], "merge and restore cannot be combined"),
        (["{}/run", "--apply", "{}/none.csv"], "none.csv cannot be read"),
        (
            ["{}/run", "--apply", "{}/none.csv", "--compare", "{}/run"],
            "apply and compare cannot be combined",
        ),
        (["{}/run", "--update", "a", "--apply", "b"], "apply and update cannot be combined"),
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
