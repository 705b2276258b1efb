from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from meds_plugin.data import Sample
from meds_plugin.runs.report import print_report, table
from meds_plugin.runs.write import RunFolder
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from meds_plugin.data.samples import Pixels


def sample(name: str, category: str, *, injected: bool | None) -> Sample:
    pixels: Pixels = torch.zeros(1, 1, 3, dtype=torch.uint8).numpy()
    return Sample(name, category, None, pixels, injected=injected)


def test_table_lines_up_and_marks_what_is_missing() -> None:
    text = table({"nut": {"I-AUROC": 0.5, "P-AP": None}, "mean": {"I-AUROC": 1.0, "P-AP": 0.1234}})
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["nut", "0.500", "-"]
    assert lines[2].split() == ["mean", "1.000", "0.123"]


def test_report_gives_reasons_and_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"I-AUROC": 0.5, "P-AP": None}
    metrics = {
        "categories": {"nut": values},
        "mean": values,
        "skipped": {
            "nut": {"P-AP": "there are no masks"},
            "ranking": {"auprc": "nothing is known"},
        },
        "protocol": {"method": "meds", "backbone": "dinomaly"},
        "noise": {"asked": None, "file": None},
        "ranking": {"auprc": None, "inspection_depth": None},
    }
    print_report(metrics, Path("runs/x"), selected=[True, False, True])
    out = capsys.readouterr().out
    assert "left out by the selection: 1 of 3 training images" in out
    assert "not computed: quality of the ranking: nothing is known" in out
    assert "noise=as found" in out
    assert "not computed: there are no masks" in out
    assert "runs/x" in out
    assert "AUPRC" not in out


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* hydra\.run\.dir=DIR"):
        RunFolder(tmp_path / "file" / "run")


def test_report_says_how_contaminated_the_set_is(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"estimate": None, "low": None, "high": None, "level": 0.9, "images": 9}
    nut = {"estimate": 0.12, "low": 0.08, "high": 0.31, "level": 0.9, "images": 90, "reason": None}
    contamination = {
        "categories": {"nut": nut, "tile": {**unknown, "reason": "too few to tell"}},
        "all": {**unknown, "reason": "unknown for 1 of 2 (tile)"},
    }
    metrics = {
        "categories": {"nut": {"I-AUROC": None}},
        "mean": {"I-AUROC": None},
        "skipped": {},
        "protocol": {"method": "meds", "backbone": "dinomaly"},
        "noise": {"asked": None, "file": None},
        "ranking": {"auprc": None, "inspection_depth": None},
    }
    print_report(metrics, Path("run"), contamination)
    assert (
        "contaminated, estimated from scores (90% interval): nut 12% (8% to 31%); "
        "no estimate for tile: too few to tell"
    ) in capsys.readouterr().out
