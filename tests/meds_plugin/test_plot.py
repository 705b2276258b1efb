from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.plot import main
from meds_plugin.runs.read import read_rows
from tests.made_up import write_run, write_sweep
from tests.trained import called, train

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra plots is not installed")


def test_command_line_draws_runs_and_sweeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path / "sweep")
    status, out, _ = called(main, capsys, str(tmp_path / "sweep"))
    assert status == 0
    assert str(tmp_path / "sweep" / "figures" / "noise.png") in out.splitlines()
    plain = write_run(tmp_path / "plain", method="plain")
    called(main, capsys, str(plain), "--format", "pdf")
    assert (plain / "figures" / "scores.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "no such folder"),
        (["run", "--format", "gif"], "choose from png, svg, pdf"),
        (["run", "--beside", "other"], "differ from"),
        (["run", "--beside", "nowhere"], "metrics.json is missing"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: Sequence[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "other", noise=0.1)
    monkeypatch.chdir(tmp_path)
    status, _, err = called(main, capsys, *arguments)
    assert status == 2
    (line,) = err.splitlines()
    assert expected in line


def test_theorem1_is_computed_from_the_runs_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "run", "noise=0.4", "method=memory").folder
    assert not (run / "gap.csv").exists()
    status, out, err = called(main, capsys, str(run), "theorem1=true")
    assert status == 0, err
    assert str(run / "figures" / "theorem1.png") in out.splitlines()
    rows = read_rows(run / "gap.csv")
    assert {row["category"] for row in rows} == {"gear", "weave"}
    for row in rows:
        difference = float(row["anomalous"]) - float(row["normal"])
        assert float(row["gap"]) == pytest.approx(difference, abs=1e-5)
        assert 0 <= float(row["auroc"]) <= 1
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("backbones.dinomaly.Dinomaly", "os.mkdir"))
    status, _, err = called(main, capsys, str(run), "theorem1=true")
    assert (status, "calls os.mkdir" in err) == (2, True)


def test_theorem1_needs_known_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path / "run", "noise=0", "method=memory").folder
    status, _, err = called(main, capsys, str(run), "theorem1=true")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "needs contaminated training images with known masks" in err
