"""Rivals from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from meds_plugin.prediction.load import load
from meds_plugin.rivals import RIVALS
from meds_plugin.utils.errors import UserError
from tests.processes import run
from tests.test_run import METRICS, TINY, read_config, rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Refuse

EASY = ("fun_ad.epochs=2", "inreach.min_length=2", "inreach.max_std=20")


@pytest.mark.parametrize("method", list(RIVALS))
def test_a_rival_leaves_what_every_method_leaves(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "run"
    status, out, err = run("noise=0.4", *TINY, *EASY, f"method={method}", f"hydra.run.dir={folder}")
    assert status == 0, err
    assert f"method={method}" in out
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["mean"]) == METRICS
    assert all(value is not None for value in metrics["mean"].values())
    assert 0 <= metrics["ranking"]["auprc"] <= 1
    assert metrics["seconds"]["fit"] > 0
    assert metrics["memory_gb"]["host"] > 0.1
    assert metrics["cut_short"] is None
    given = read_config(folder)[method]
    assert metrics["protocol"]["rival"] == given
    assert metrics["protocol"]["encoder"] == "tf_efficientnet_lite0"
    ranking = rows(folder / "ranking.csv")
    assert len(ranking) == 22
    assert [float(row["score"]) for row in ranking] == sorted(
        (float(row["score"]) for row in ranking), reverse=True
    )
    assert {row["memory"] for row in ranking} == {""}
    assert (folder / "review.html").is_file()
    assert ("patent" in err) == (method == "fun_ad")
    with pytest.raises(UserError, match=f"is of method={method}, which trains no detector"):
        load(folder)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["method=patchcore", "patchcore.coreset=0"], "patchcore.coreset must be a share in"),
        (["method=patchcore", "patchcore.cores=1"], "patchcore.coreset"),
        (["method=softpatch", "softpatch.noise=knn"], "softpatch.noise must be lof or nearest"),
        (["method=inreach", "inreach.seeds=0"], "inreach.seeds must be a whole number"),
        (["method=fun_ad", "fun_ad.lr=fast"], "fun_ad.lr must be a number"),
        (["method=musc", "musc.degrees=3"], "musc.degrees must be a list of odd whole numbers"),
        (["memory.ensemble=interval", "memory.interval=[0.3]"], "memory.interval must be two"),
        (["method=rival"], "musc"),
    ],
)
def test_bad_values_are_answered_in_a_line(refuse: Refuse, overrides: list[str], line: str) -> None:
    assert line in refuse(*TINY, *overrides)


def test_an_interval_is_a_target_of_meds(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    status, _, err = run(
        *TINY,
        "noise=0.4",
        "memory.ensemble=interval",
        "memory.interval=[0,0.5]",
        f"hydra.run.dir={folder}",
    )
    assert status == 0, err
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"]["memory"]["interval"] == [0, 0.5]
    assert metrics["seconds"]["distill"] > 0
