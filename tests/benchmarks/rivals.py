"""Compare our PatchCore and SoftPatch with anomalib's PatchCore, on the same features.

Each fits a coreset to the same made-up features and scores the same test images, in a process of
its own: CPU seconds, and the largest resident size less that of a process that only makes the
features. anomalib keeps its own settings (sparse projection, one start point, 9 neighbours); the
share of patches that is stored is one for all.
`python -m tests.benchmarks.rivals --output FILE`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from meds_plugin.rivals import PatchCore, SoftPatch
from meds_plugin.rivals.base import TensorFeatures
from tests.benchmarks.common import machine, measure, show, write
from tests.benchmarks.memory import synthetic_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CPU = torch.device("cpu")
NOTHING = "features only"
SIZES = {"images": 40, "tests": 20, "patches": 784, "channels": 1024, "threads": 1}


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = _options()
    if options.child is not None:
        print(json.dumps(measured(options)))
        return
    found = {name: in_a_process(options, name) for name in (NOTHING, *METHODS)}
    nothing, theirs = found[NOTHING], found["anomalib's PatchCore"]
    rows = []
    for name in METHODS:
        seconds = {key: found[name][key] for key in ("fit", "score")}
        whole = sum(seconds.values())
        rows.append(
            {
                "method": name,
                **seconds,
                "times_faster": (theirs["fit"] + theirs["score"]) / whole,
                "peak_mb": found[name]["peak_mb"] - nothing["peak_mb"],
            }
        )
    report = {**vars(options), **machine(CPU), "rows": rows}
    columns = ("method", "fit", "score", "times_faster", "peak_mb")
    show("PatchCore and SoftPatch", columns, ([row[key] for key in columns] for row in rows))
    del report["output"], report["child"]
    write(report, options.output)


def _ours(kind: type[PatchCore | SoftPatch]) -> Callable[..., dict[str, float]]:
    def run(train: TensorFeatures, test: TensorFeatures, share: float) -> dict[str, float]:
        rival = kind(coreset=share)
        fit, fitted = measure(lambda: rival.fit(train, group="", seed=0), CPU)
        score, _ = measure(lambda: fitted.score(test), CPU)
        return {"fit": fit, "score": score}

    return run


def _anomalib(train: TensorFeatures, test: TensorFeatures, share: float) -> dict[str, float]:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["layer2"], backbone="resnet18", pre_trained=False).eval()
    model.embedding_store = [train.values.flatten(0, 1)]
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        fit, _ = measure(lambda: model.subsample_embedding(share), CPU)

    def scored() -> list[Tensor]:
        scores = []
        for image in test.values:
            distances, places = model.nearest_neighbors(image, n_neighbors=1)
            shape = (1, -1)
            scores.append(
                model.compute_anomaly_score(distances.view(shape), places.view(shape), image)
            )
        return scores

    score, _ = measure(scored, CPU)
    return {"fit": fit, "score": score}


METHODS: dict[str, Callable[..., dict[str, float]]] = {
    "anomalib's PatchCore": _anomalib,
    "PatchCore": _ours(PatchCore),
    "SoftPatch": _ours(SoftPatch),
}


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Run a method; return its seconds and the largest resident size of this process."""
    torch.set_num_threads(options.threads)
    count = options.images + options.tests
    features = synthetic_features(count, options.patches, options.channels)
    train, test = (
        TensorFeatures(part, (1, options.patches)) for part in features.split(options.images)[:2]
    )
    found: dict[str, float] = {"fit": 0.0, "score": 0.0}
    if options.child != NOTHING:
        with torch.no_grad():
            found = METHODS[options.child](train, test, options.share)
    unit = 1024 if sys.platform == "linux" else 1  # kilobytes; bytes on a Mac
    return {**found, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


def in_a_process(options: argparse.Namespace, name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.rivals", "--child", name]
    for key in (*SIZES, "share"):
        command += [f"--{key}", str(getattr(options, key))]
    # Else glibc's heap fragments in anomalib's loop, and takes more than 20 GB by itself.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(result.stdout)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--share", type=float, default=0.1, help="of the patches that is stored")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    parser.add_argument("--child", help="a method, in a process for its figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
