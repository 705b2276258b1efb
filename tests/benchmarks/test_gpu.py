"""The GPU benchmark at toy size on a CPU: its parts, their tables, what it does when one fails."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.benchmarks import gpu, gpu_setting
from tests.benchmarks.gpu_tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ON_CPU = ("--device", "cpu", "--tiny")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the command and gives what it wrote."""

    def call(*arguments: str) -> dict[str, Any]:
        output = tmp_path / "report.json"
        monkeypatch.setattr(sys, "argv", ["gpu", *arguments, "--output", str(output)])
        gpu.main()
        found: dict[str, Any] = json.loads(output.read_text())
        return found

    return call


@pytest.fixture
def in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run parts here, which spares their imports."""

    def here(name: str, seconds: float, device: str, *, tiny: bool) -> dict[str, Any]:
        output = tmp_path / f"{name}.json"
        arguments = [f"--device={device}", f"--seconds={seconds}", f"--output={output}", "--tiny"]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *arguments])
            import_module(f"tests.benchmarks.gpu_{name}").main()
        return {"status": "done", "seconds": 1.0, "found": json.loads(output.read_text())}

    monkeypatch.setattr(gpu, "run_part", here)


@pytest.mark.usefixtures("in_this_process")
def test_all_parts_run_through_at_toy_size(
    run: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    found = run("--all", *ON_CPU)["parts"]
    assert [*found] == [*gpu.PARTS]
    assert found["tests"]["found"]["counts"]["passed"] >= 3
    check_setting(found["setting"]["found"])
    rows = found["memory"]["found"]["rows"]
    assert [(row["images"], row["stored"], row["dtype"]) for row in rows] == [
        (8, None, "float32"),
        (8, None, "bfloat16"),
        (24, 10, "bfloat16"),
        (24, None, "bfloat16"),
    ]
    assert rows[0]["mean"] == pytest.approx(rows[1]["mean"], rel=0.01)
    assert set(found["compiled"]["found"]["compiled"]) == {"distillation step", "fine-tuning step"}
    seconds = found["fit"]["found"]["seconds"]
    assert seconds["whole"] > seconds["memory"] + seconds["distill"] + seconds["finetune"]
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu", "--table", str(tmp_path / "report.json")])
    gpu.main()
    again = capsys.readouterr().out
    assert printed.endswith(again)
    assert again.count("\n| --- |") == 4
    assert "| 24 | 10 | bfloat16 |" in again


def check_setting(found: dict[str, Any]) -> None:
    assert set(found["ours"]) == set(found["reference"])
    passes = 1 + 10_000 / (gpu_setting.KEPT * 20 / 4)
    for kind in ("ours", "reference"):
        part = found[kind]
        total = part["encoding"] + part["memory scores"] + passes * part["selection pass"]
        total += 10_000 * (part["distillation step"] + part["fine-tuning step"])
        assert found[f"{kind}_total"] == pytest.approx(total)
    shares = found["share_of_product_rate"]
    assert set(shares) == set(found["ours"]) - {"selection pass"}
    assert all(0 < share < 1.5 for share in shares.values())


def test_a_failing_part_is_named_and_does_not_stop_the_others(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "PARTS", {"not_there": 90, "slow": 90, "late": 1})
    whole = gpu.run_part

    def part(name: str, seconds: float, device: str, *, tiny: bool) -> dict[str, Any]:
        name, seconds = ("fit", 0.2) if name == "slow" else (name, seconds)
        return whole(name, seconds, device, tiny=tiny)

    monkeypatch.setattr(gpu, "run_part", part)
    with pytest.raises(SystemExit) as ended:
        run("--all", *ON_CPU)
    assert ended.value.code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    parts = report["parts"]
    assert [each["status"] for each in parts.values()] == ["failed", "failed", "not run"]
    assert "No module named" in parts["not_there"]["error"]
    assert parts["slow"]["error"] == "ended after 0 s"
    text = tables(report)
    assert "not_there: failed, " in text
    assert "late: not run, no time was left" in text


def test_a_part_that_failed_halfway_has_no_table() -> None:
    found = {"machine": {"device": "card", "torch": "2"}, "ours": {"encoding": 1.0}}
    part = {"status": "failed", "seconds": 3.0, "error": "x\nout of memory", "found": found}
    text = tables({"parts": {"setting": part}})
    assert text == "Measured on card with torch 2.\n\nsetting: failed, out of memory"


def test_it_says_where_it_was_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    gpu.main()
    assert "not run" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu"])
    with pytest.raises(SystemExit, match="--tiny"):
        gpu.main()


def test_missing_packages_are_named_with_what_is_left_out(
    run: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = {"faiss", "hydra"}
    monkeypatch.setattr(gpu, "find_spec", lambda n: None if n in absent else find_spec(n))
    report = run("--minutes", "0", *ON_CPU)
    assert absent <= set(report["missing"])
    assert "faiss (left out: its searches)" in capsys.readouterr().out
    absent.add("timm")
    with pytest.raises(SystemExit, match="packages are missing: timm"):
        run(*ON_CPU)
