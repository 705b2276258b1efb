from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.runs.collection import differing, find_runs, partner, read_run, separate
from meds_plugin.utils.errors import UserError
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path


def test_finds_runs_at_any_depth_and_those_that_did_not_finish(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a" / "b" / "0")
    second = write_run(tmp_path / "1", seed=1)
    (tmp_path / "2" / ".hydra").mkdir(parents=True)
    (tmp_path / "2" / ".hydra" / "config.yaml").write_text("seed: 2")
    (write_run(tmp_path / "4") / "config.yaml").rename(tmp_path / "4" / "config.old")
    (tmp_path / "4" / ".hydra").mkdir()
    (tmp_path / "4" / ".hydra" / "config.yaml").write_text("seed: 2")
    early = write_run(tmp_path / "3", seed=3, cut_short="ended early")
    done, missing = find_runs(tmp_path)
    assert [run.path for run in done] == [second, first]
    assert missing == {
        tmp_path / "2": "not finished",
        early: "ended early",
        tmp_path / "4": "not finished",
    }


def test_a_run_knows_its_metrics(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0", noise=None, value=0.75, known=False))
    assert run.metric("I-AUROC") == 0.75
    assert run.metric("I-AUROC", "nut") == 0.75
    assert run.metric("auprc") is None
    assert run.metric("auprc", "tile") is None
    assert run.metric("P-F1max") is None
    assert run.noise is None
    assert (run.data, run.backbone, run.categories) == ("things", "dinomaly", ["nut", "tile"])


def test_separates_what_must_not_be_averaged(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "0")),
        read_run(write_run(tmp_path / "1", seed=1, noise=0.1, method="plain", backbone="hvq")),
        read_run(write_run(tmp_path / "2", steps__distill=20)),
        read_run(write_run(tmp_path / "4", cache__gb=0.0, cache__dir="/kept", review=False)),
    ]
    groups = separate(runs)
    names = [[run.path.name for run in group] for group, _ in groups]
    assert names == [["0", "1", "4"], ["2"]]
    assert [note for _, note in groups] == [{"steps.distill": "10"}, {"steps.distill": "20"}]


def test_says_what_differs() -> None:
    assert differing([(("a", "1"), ("b", "1")), (("a", "2"), ("b", "1"))]) == [
        {"a": "1"},
        {"a": "2"},
    ]


def test_the_plain_run_beside_is_one_of_the_same_data_noise_and_seed(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "0", noise=0.4))
    others = [
        read_run(write_run(tmp_path / "1", method="plain", noise=0.1)),
        read_run(write_run(tmp_path / "2", method="plain", seed=1)),
        read_run(write_run(tmp_path / "3", method="plain", steps__distill=5)),
        read_run(write_run(tmp_path / "4", method="plain", backbone__detector__decoder_depth=8)),
    ]
    assert partner(run, others) is None
    wanted = read_run(write_run(tmp_path / "5", method="plain"))
    assert partner(run, [*others, wanted]) is wanted


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="no finished run"):
        find_runs(tmp_path)
    write_run(tmp_path / "2", cut_short="ended early")
    with pytest.raises(UserError, match=r"no finished run in it, only .*2 \(ended early\)"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="method=magic"):
        read_run(write_run(tmp_path / "1", method="magic"))
    folder = write_run(tmp_path / "0")
    (folder / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="is not of a finished run"):
        read_run(folder)
