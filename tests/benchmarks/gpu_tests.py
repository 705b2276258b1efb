"""Run the tests that need a GPU: ``python -m tests.benchmarks.gpu_tests``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.gpu_part import Part

_MARGIN = 5.0  # seconds for the report of a run that takes too long


def main() -> None:
    """Run them, report how many passed and which did not; exit with 1 unless all passed."""
    part = Part(__doc__)
    project = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--color=no"]
    command += ["--tb=short", "-p", "no:cacheprovider"]
    if part.tiny:
        command += ["-k", "test_predictions_are_those_of_a_cpu"]
    elif find_spec("xdist") is not None:
        command += ["-n", "4"]
    env = {**os.environ, "MEDS_GPU_TESTS_DEVICE": part.device.type}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=project,
            env=env,
            timeout=part.left - _MARGIN,
            check=False,
        )
        text, ended = done.stdout + done.stderr, done.returncode == 0
    except subprocess.TimeoutExpired as stopped:
        output = stopped.stdout or b""
        text, ended = output.decode() if isinstance(output, bytes) else output, False
    lines = text.splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed)", line)), "")
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    bad = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    part.add({"counts": counts, "summary": last, "bad": bad[-60:], "skipped": skipped})
    if not ended or not counts.get("passed"):
        sys.exit(last or text[-2000:] or "the tests took too long")


if __name__ == "__main__":
    main()
