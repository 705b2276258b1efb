"""Measure how much memory and time stage 1 takes, against the number of images.

Each figure comes from a process of its own, by the kernel's count of its largest resident size,
less that of a process that only loads the libraries. ``vectors`` are the unit vectors of the
features (what has to be held), ``square`` the table of all distances that is not held.
``in a file`` keeps the vectors in a file: the pages that the kernel counts can then be dropped.
``--stored`` limits the images that memories are sampled from; seconds are those of the scores.
`python -m tests.benchmarks.memory_peak --output FILE`
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from meds_plugin.memory import expected_scores
from meds_plugin.memory.patch_vectors import PatchVectors, vector_bytes
from meds_plugin.memory.settings import DTYPES
from meds_plugin.utils.rng import torch_generator

RATIO = 0.1
MB = 1e6
CPU = torch.device("cpu")


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = _options()
    if options.child is not None:
        print(json.dumps(measure(options, options.child)))
        return
    nothing = _in_a_process(options, 0, "memory")["peak_mb"]
    rows = []
    for images in options.images:
        vectors = vector_bytes(
            images, options.patches, options.channels, dtype=DTYPES[options.products], device=CPU
        )
        row = {"images": images, "vectors_mb": vectors / MB}
        row["square_mb"] = images * images * options.patches * 4 / MB
        for home in options.homes:
            found = _in_a_process(options, images, home)
            row[f"{home}_mb"] = found["peak_mb"] - nothing
            row[f"{home}_seconds"] = found["seconds"]
        rows.append(row)
    report = {
        "patches": options.patches,
        "channels": options.channels,
        "stored": options.stored,
        "products": options.products,
        "threads": options.threads,
        "libraries_mb": nothing,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": rows,
    }
    _print(report, rows, options.homes)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


def measure(options: argparse.Namespace, images: int) -> dict[str, float]:
    """Score made-up features; return the largest resident size of this process, and the time."""
    torch.set_num_threads(options.threads)
    seconds = 0.0
    if images > 0:
        with tempfile.NamedTemporaryFile() as file:
            vectors = PatchVectors(
                images,
                options.patches,
                options.channels,
                dtype=DTYPES[options.products],
                device=CPU,
                file=Path(file.name) if options.home == "file" else None,
            )
            generator = torch_generator(0, "benchmark", images)
            for image in range(images):  # as an encoder gives them, a few at a time
                shape = (1, options.patches, options.channels)
                vectors.put(range(image, image + 1), torch.randn(shape, generator=generator))
            start = time.perf_counter()
            expected_scores(vectors, RATIO, stored=options.stored)
            seconds = time.perf_counter() - start
    unit = 1024 if sys.platform == "linux" else 1  # kilobytes; bytes on a Mac
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_mb": peak / MB, "seconds": seconds}


def _in_a_process(options: argparse.Namespace, images: int, home: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.memory_peak"]
    for name in ("patches", "channels", "products", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--home", home, "--child", str(images)]
    if options.stored is not None:
        command += ["--stored", str(options.stored)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(result.stdout)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 200, 400, 800])
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--stored", type=int, help="images that memories are sampled from; all")
    parser.add_argument("--products", choices=list(DTYPES), default="float32")
    parser.add_argument("--homes", nargs="+", choices=["memory", "file"], default=["memory"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    parser.add_argument("--home", choices=["memory", "file"], default="memory")
    parser.add_argument("--child", type=int, help="number of images, in a process for one figure")
    return parser.parse_args()


def _print(report: dict[str, object], rows: list[dict[str, float]], homes: list[str]) -> None:
    size = ", ".join(f"{report[key]} {key}" for key in ("patches", "channels", "threads"))
    print(f"{size}, {report['products']} products; MB beside the libraries")
    names = "".join(f"{f'peak, {home}':>14}{'seconds':>9}" for home in homes)
    print(f"{'images':>6}{'vectors':>9}{'square':>9}{names}{'peak/images':>13}")
    for row in rows:
        figures = "".join(f"{row[f'{h}_mb']:14.0f}{row[f'{h}_seconds']:9.1f}" for h in homes)
        each = row[f"{homes[0]}_mb"] / row["images"]
        print(
            f"{row['images']:6.0f}{row['vectors_mb']:9.0f}{row['square_mb']:9.0f}"
            f"{figures}{each:13.2f}"
        )


if __name__ == "__main__":
    main()
