"""What loggers get of a run."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from tests.processes import run
from tests.test_run import TINY, read_config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Refuse


def table(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.glob("logs/*/metrics.csv")
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def column(rows: list[dict[str, str]], name: str) -> dict[int, float]:
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}


def test_a_table_and_tensorboard_hold_the_whole_run(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "a run"
    both = ("logger=[csv,tensorboard]", "figures=true")
    status, _, err = run("noise=0.4", *TINY, *both, f"hydra.run.dir='{folder}'")
    assert status == 0, err
    rows = table(folder)
    assert list(column(rows, "loss/distill")) == [0, 9]
    assert list(column(rows, "loss/finetune")) == [19, 23]
    assert column(rows, "stage") == {0: 0, 9: 0, 19: 1, 23: 1}
    assert column(rows, "lr")[0] == 0  # of the step, not of the next
    assert max(column(rows, "lr")) == 23
    with (folder / "selection.csv").open(newline="") as text:
        selections = list(csv.DictReader(text))
    for category in ("gear", "weave"):
        for key in ("kept", "threshold", "median", "mad", "contaminated"):
            own = {int(r["step"]): float(r[key]) for r in selections if r["category"] == category}
            logged = column(rows, f"selection/{category}/{key}")
            assert logged == pytest.approx({step: own[step] for step in logged})
            assert 10 in logged
    metrics = json.loads((folder / "metrics.json").read_text())
    assert column(rows, "I-AUROC") == {24: pytest.approx(metrics["mean"]["I-AUROC"])}
    own = metrics["categories"]["gear"]["P-AP"]
    assert column(rows, "gear/P-AP") == {24: pytest.approx(own)}

    found = events.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    for name in ("loss/finetune", "lr", "selection/gear/kept", "ranking/auprc"):
        logged = {event.step: event.value for event in found.Scalars(name)}
        assert logged == pytest.approx(column(rows, name))
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert set(found.Tags()["images"]) == pictures
    assert {"scores", "tiles"} <= pictures


def test_a_resumed_run_logs_no_selection_twice(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    own = ("logger=csv", f"hydra.run.dir={folder}", "trainer.max_steps=16", "review=false")
    assert run("noise=0.4", *TINY, *own)[0] == 0
    assert run(f"resume={folder}", "trainer.max_steps=null")[0] == 0
    steps: list[int] = []
    for file in sorted(folder.glob("logs/*/metrics.csv")):
        with file.open(newline="") as text:
            steps += column(list(csv.DictReader(text)), "selection/gear/kept")
    assert steps == sorted(set(steps))
    assert steps[0] == 10
    assert steps[-1] > 16


def test_a_resumed_run_is_the_same_one_for_weights_and_biases(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    own = ("logger=wandb", "logger.wandb.offline=true", f"hydra.run.dir={folder}", "review=false")
    assert run("noise=0.4", *TINY, *own, "trainer.max_steps=16")[0] == 0
    (first,) = folder.glob("wandb/offline-run-*")
    name = read_config(folder).logger.wandb.id
    assert first.name.endswith(name)
    assert run(f"resume={folder}", "trainer.max_steps=null")[0] == 0
    again = [*folder.glob("wandb/offline-run-*")]
    assert len(again) == 2
    assert all(each.name.endswith(name) for each in again)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["trainer.logger=true"], "trainer.logger is set by the run: choose with logger=csv"),
        (["+trainer.callbacks=[]"], "trainer.callbacks is set by the run"),
        (["trainer.enable_checkpointing=true"], "model.ckpt is written every checkpoint_every"),
        (["logger=tensorbord"], "choose from comet, csv, many, mlflow, none, tensorboard, wandb"),
        (["logger.csv.flush=3"], "logger.csv"),
        (["validate_every=0"], "validate_every must be a whole number of steps"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(refuse: Refuse, overrides: list[str], line: str) -> None:
    assert line in refuse(*TINY, *overrides)


def test_the_test_images_are_measured_on_the_way_where_asked(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("plain", "watched")]
    own = ("noise=0.4", *TINY, "review=false")
    for folder, more in zip(folders, ((), ("validate_every=8",)), strict=True):
        assert run(*own, *more, f"hydra.run.dir={folder}")[0] == 0
    plain, watched = (json.loads((f / "metrics.json").read_text()) for f in folders)
    assert watched["mean"] == plain["mean"]
    assert watched["ranking"] == plain["ranking"]
    seen = column(table(folders[1]), "val/I-AUROC")
    assert len(seen) == 3
    assert all(0 <= value <= 1 for value in seen.values())
    assert not column(table(folders[0]), "val/I-AUROC")
