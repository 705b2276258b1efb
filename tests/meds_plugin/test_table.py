from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meds_plugin.table import main
from tests.made_up import write_run
from tests.trained import called

if TYPE_CHECKING:
    from pathlib import Path


def test_command_line_writes_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "1" / ".hydra").mkdir(parents=True)
    (tmp_path / "sweep" / "1" / ".hydra" / "config.yaml").write_text("")
    cut = write_run(tmp_path / "sweep" / "2", cut_short="training ended after 5 of 20 steps")
    status, out, _ = called(main, capsys, str(tmp_path / "sweep"))
    assert status == 0
    assert f"missing: {cut}: training ended after 5 of 20 steps" in out
    assert f"missing: {tmp_path / 'sweep' / '1'}: not finished" in out
    assert (tmp_path / "sweep" / "table.md").read_text() in out
    assert "\\begin{tabular}" in (tmp_path / "sweep" / "table.tex").read_text()
    assert (tmp_path / "sweep" / "table.csv").read_text().startswith("settings,metric,")
    called(main, capsys, str(tmp_path / "sweep"), "--format", "csv", "--output", str(tmp_path))
    assert (tmp_path / "table.csv").is_file()
    assert not (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["nowhere"], "no such folder"), ([".", "--format", "word"], "choose from md, csv, latex")],
)
def test_wrong_input_is_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = called(main, capsys, *arguments)
    assert status == 2
    (line,) = err.splitlines()
    assert expected in line
