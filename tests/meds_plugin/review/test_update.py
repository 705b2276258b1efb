from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.data.exclude import read_exclude
from meds_plugin.review.update import report, update_review
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.made_up import element, make_run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAMES = [f"{number:03}.png" for number in range(120)]
CONTAMINATED = {*NAMES[:12], NAMES[70]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run", NAMES)
    vectors = np.random.default_rng(0).normal(size=(len(NAMES), 8)).astype(np.float16)
    np.savez(folder / "embeddings.npz", image=vectors, peak=vectors)
    return folder


def decide(folder: Path, names: Iterable[str]) -> Path:
    file = folder / "decisions.csv"
    rows = [f"{name},wood,{'drop' if name in CONTAMINATED else 'keep'}\n" for name in names]
    file.write_text("path,category,decision\n" + "".join(rows))
    return file


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def undecided(file: Path) -> list[str]:
    return [row["path"] for row in read(file) if not row["decision"]]


def test_a_review_goes_on_until_it_may_stop(run: Path, tmp_path: Path) -> None:
    updated = update_review(run, decide(tmp_path, NAMES[:10]), at_most=0.05)
    assert updated.file == run / "review_order.csv"
    assert (updated.kept, updated.dropped, updated.left.images) == (0, 10, 110)
    assert updated.left.random == 0
    assert "no guarantee" in report(updated, 0.05)[1]
    reviewed = 10
    while updated.left.share > 0.05:
        assert "may stop" not in report(updated, 0.05)[-1]
        # The page downloads new decisions only: earlier ones are in the run's folder.
        updated = update_review(run, decide(tmp_path, undecided(updated.file)[:15]), at_most=0.05)
        reviewed += 15
        assert updated.kept + updated.dropped == reviewed
    assert updated.file.name == f"review_order{(reviewed - 10) // 15 + 1}.csv"
    assert reviewed < 90
    truth = len(CONTAMINATED) - updated.dropped
    assert updated.left.low <= truth <= updated.left.high
    lines = report(updated, 0.05)
    assert "95% confidence" in lines[1]
    assert lines[2].startswith("you may stop: at most ")
    assert read_exclude(updated.file) == CONTAMINATED & {
        row["path"] for row in read(updated.file) if row["decision"]
    }
    last = update_review(run, decide(tmp_path, NAMES), at_most=0.05)
    assert last.left[:4] == (0.0, 0, 0, 0)
    assert report(last, 0.05) == [
        f"{last.file}: 0 images left, in a new order; 13 dropped, 107 kept"
    ]


def test_the_same_decisions_give_the_same_order(run: Path, tmp_path: Path) -> None:
    file = decide(tmp_path, NAMES[:10])
    text = update_review(run, file, at_most=0.05).file.read_bytes()
    again = update_review(run, file, at_most=0.05)
    assert again.file.name == "review_order.csv"
    assert again.file.read_bytes() == text
    # Another share may ask for another order; the first one stays, as somebody may be at it.
    assert update_review(run, file, at_most=0.3).file.name == "review_order2.csv"
    assert (run / "review_order.csv").read_bytes() == text


def test_a_later_decision_is_right(run: Path, tmp_path: Path) -> None:
    update_review(run, decide(tmp_path, NAMES[:20]), at_most=0.05)
    file = tmp_path / "changed.csv"
    file.write_text(f"path,decision\n{NAMES[0]},keep\n{NAMES[1]},undecided\n")
    updated = update_review(run, file, at_most=0.05)
    assert (updated.dropped, updated.kept) == (11, 9)


def test_the_page_shows_the_new_order(run: Path, tmp_path: Path) -> None:
    updated = update_review(run, decide(tmp_path, NAMES[:20]), at_most=0.05)
    updated = update_review(run, decide(tmp_path, undecided(updated.file)[:20]), at_most=0.05)
    page = updated.page.read_text("ascii")
    data = json.loads(element(page, "data"))
    shown = [data["path"][i] for i in np.argsort(-np.array(data["suspicion"]), kind="stable")]
    assert shown[:80] == undecided(updated.file)
    assert shown[80:] == [name for name in NAMES if name not in shown[:80]]
    assert "contaminated images among those left: about" in data["headline"]
    found = updated.dropped / 120
    estimate = data["contamination"]["all"]
    assert found <= estimate["low"] <= estimate["estimate"] <= estimate["high"]
    chances = dict(zip(data["path"], data["probability"], strict=True))
    assert sum(chances[name] for name in shown[80:]) == updated.dropped


@pytest.mark.parametrize("names", [[], NAMES[:12], NAMES[12:30], NAMES[:1]])
def test_any_first_decisions_will_do_without_embeddings_too(
    run: Path, tmp_path: Path, names: list[str]
) -> None:
    (run / "embeddings.npz").unlink()
    updated = update_review(run, decide(tmp_path, names), at_most=0.0)
    ranked = [row["path"] for row in read(updated.file) if row["random"] == "0"]
    assert ranked == sorted(ranked)  # by score


def test_a_run_of_one_image(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png"])
    assert update_review(run, decide(tmp_path, []), at_most=0.05).left.images == 1
    assert update_review(run, decide(tmp_path, ["a.png"]), at_most=0.05).left.images == 0


def test_what_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--update=.* not training images"):
        update_review(run, decide(tmp_path, ["x.png"]), at_most=0.05)
    decide(tmp_path, NAMES[:3]).replace(run / "review_order.csv")
    with pytest.raises(UserError, match="different images"):
        update_review(run, decide(tmp_path, NAMES[:3]), at_most=0.05)
