"""A run on a hundred thousand made-up images: time of each part, and peak memory.

    python -m tests.benchmarks.large FOLDER

draws the images into FOLDER/images unless they are there, ten categories of 64 px with 2 % of
defects, and trains on them as a user would, in a process of its own, with data=folder. Further
arguments are overrides of that run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from meds_plugin.utils.progress import track
from meds_plugin.utils.rng import numpy_rng
from tests.benchmarks.common import show

_SIDE = 64
_DEFECTIVE = 0.02


def draw(folder: Path, images: int, categories: int) -> None:
    """Draw striped images, some with a dark spot, into a folder for each category."""
    across = np.arange(_SIDE) / _SIDE
    for category in range(categories):
        own = folder / f"product {category}"
        own.mkdir(parents=True, exist_ok=True)
        stripes = numpy_rng(0, "large", category).uniform(2, 8, 2)
        numbers = range(category, images, categories)
        for number in track(numbers, description=own.name, enabled=sys.stderr.isatty()):
            rng = numpy_rng(0, "large", "image", number)
            phase, light = rng.uniform(0, 1, 2), rng.uniform(0.9, 1.1)
            waves = [np.sin(6.28 * (s * across + p)) for s, p in zip(stripes, phase, strict=True)]
            pixels = light * (128 + 30 * waves[0][:, None] + 30 * waves[1])
            pixels += rng.normal(0, 3, pixels.shape)
            if rng.random() < _DEFECTIVE:
                y, x = rng.integers(8, _SIDE - 16, 2)
                pixels[y : y + 8, x : x + 8] *= 0.4
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(own / f"{number:06d}.jpg", quality=90)


def main() -> None:
    """Draw what is missing, run, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--categories", type=int, default=10)
    given, overrides = parser.parse_known_args()
    images, run = given.folder / "images", given.folder / "run"
    if not images.exists():
        draw(images, given.images, given.categories)
    command = [
        *(sys.executable, "-m", "meds_plugin.run", f"hydra.run.dir={run}", "data=folder"),
        *(f"data.root={images}", "data.by_directory=true"),
        *(f"data.image_size={_SIDE}", "data.crop=null"),
        *("steps.distill=200", "steps.finetune=200", *overrides),
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    seconds = json.loads((run / "metrics.json").read_text())["seconds"]
    show("seconds", ("part", "s"), [*seconds.items(), ("whole", whole)])
    print(f"peak memory: {peak:.2f} GB")


if __name__ == "__main__":
    main()
