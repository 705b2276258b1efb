"""The command ``python -m backbones.pretrain``."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backbones import pretrain, pretraining
from backbones.objectives import HeldOut
from backbones.pretrain import write_weights
from meds_plugin.encoder import EMBEDDED_WEIGHTS, build_encoder

TINY = (
    *("pretrain.textures=6", "pretrain.canvas=48", "pretrain.sizes=[32]", "pretrain.tokens=128"),
    *("pretrain.steps=3", "device=cpu"),
)
PROJECT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pretrain", *options])
    with pytest.raises(SystemExit) as end:
        pretrain.main()
    return int(end.value.code or 0)


def test_two_runs_with_one_seed_write_the_same_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(pretraining, "HeldOut", partial(HeldOut, textures=2, views=2))
    first, second = (tmp_path / "new" / f"{name}.safetensors" for name in "ab")
    assert run(monkeypatch, f"output={first}", *TINY, "pretrain.check_every=2") == 0
    said = capsys.readouterr().out
    command = [sys.executable, "-m", "backbones.pretrain", f"output={second}", *TINY]
    subprocess.run([*command, "pretrain.check_every=0"], cwd=PROJECT, check=True)
    assert first.read_bytes() == second.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() in said
    assert [line.partition(":")[0] for line in said.splitlines()[:2]] == ["step 2", "step 3"]
    assert sorted(p.name for p in first.parent.iterdir()) == [first.name, second.name]
    encoder = build_encoder(model="embedded", image_size=64, layers=[2, 5], weights=str(first))
    assert bool(torch.isfinite(encoder.features(torch.zeros(1, 3, 64, 64))).all())


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_says_where_it_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "w.safetensors"
    command = [sys.executable, "-m", "backbones.pretrain", f"output={output}", *TINY]
    running = subprocess.Popen(
        [*command, "pretrain.steps=100000", "pretrain.check_every=0"],
        cwd=PROJECT,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs deaf to Ctrl-C, and so their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    part = tmp_path / "w.safetensors.part"
    patience = time.monotonic() + 120
    while not part.exists() and time.monotonic() < patience:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert said.splitlines()[-1] == f"stopped: the same command goes on from {part}"
    assert "Traceback" not in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["pretrain.steps=abc"], "pretrain.steps must be a whole number"),
        (["pretrain.foo=1"], "'pretrain.foo=1' is no option"),
        (["pretrain=null"], "'pretrain=null' is no option"),
        (["threads=0"], "threads must be a whole number of at least 1"),
        (["half=maybe"], "half must be true or false"),
        (["device=gpu"], "device=gpu cannot be used"),
        (["output=null"], "output=FILE is missing"),
        (["output=weights.pth"], "give a name that ends in .safetensors"),
        (["output=/proc/none/w.safetensors"], "output=/proc/none/w.safetensors cannot be written"),
    ],
)
def test_wrong_input_is_one_line_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    told: str,
) -> None:
    assert run(monkeypatch, f"output={tmp_path / 'w.safetensors'}", *TINY, *options) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "w.safetensors"
    output.write_bytes(b"precious")
    assert run(monkeypatch, f"output={output}", *TINY) == 2
    assert "is there: give another file, or overwrite=true" in capsys.readouterr().err
    assert output.read_bytes() == b"precious"
    quick = "pretrain.check_every=0"
    assert run(monkeypatch, f"output={output}", *TINY, quick, "overwrite=true") == 0
    assert load_file(output)


def test_weights_are_written_whole_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "embedded.safetensors"
    checksum = write_weights(path, {"a": torch.ones(3), "b": torch.zeros(2, 2)}, torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    assert {v.dtype for v in load_file(path).values()} == {torch.float16}


def test_the_shipped_weights_are_small_and_those_of_the_card() -> None:
    assert EMBEDDED_WEIGHTS.stat().st_size < 8e6
    card = EMBEDDED_WEIGHTS.with_name("CARD.md").read_text()
    assert hashlib.sha256(EMBEDDED_WEIGHTS.read_bytes()).hexdigest() in card
