"""Compare our reading of images with a plain torchvision folder loader.

Both read the same files with as many workers and the same resize, crop and normalisation, in turn,
in one process; the shortest of the repeats counts, for other work on the machine only ever adds
time. `python -m tests.benchmarks.loading --json FILE`
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms  # type: ignore[import-untyped]

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.normalization import IMAGENET

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

KINDS: dict[str, dict[str, Any]] = {"png": {"compress_level": 6}, "jpg": {"quality": 92}}


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = _options()
    torch.set_num_threads(1)
    preprocess = Preprocess(options.size, options.crop)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            root = Path(folder) / kind
            write_images(root / "one_class", kind, options.images, options.side)
            ours = ours_loader(root, kind, preprocess, options)
            theirs = torchvision_loader(root, options)
            rows[kind] = compare(partial(read, ours, "image"), partial(read, theirs, 0), options)
    report = {
        **{key: value for key, value in vars(options).items() if key != "json"},
        "machine": platform.machine(),
        "pillow": PIL.__version__,
        "torch": torch.__version__,
        "runs": rows,
    }
    _print(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def write_images(folder: Path, kind: str, count: int, side: int) -> None:
    """Write images with the detail of photographs: smooth shapes and sensor noise."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = draw.integers(40, 216, (side // 32, side // 32, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noise = draw.integers(-6, 7, (side, side, 3))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.{kind}", **KINDS[kind])


def ours_loader(
    root: Path, kind: str, preprocess: Preprocess, options: argparse.Namespace
) -> DataLoader[Any]:
    """Return our data set behind a loader."""
    files = sorted(root.rglob(f"*.{kind}"))
    samples = [Sample(file.name, "one_class", None, file) for file in files]
    return DataLoader(
        ImageDataset(samples, preprocess), options.batch_size, num_workers=options.workers
    )


def torchvision_loader(root: Path, options: argparse.Namespace) -> DataLoader[Any]:
    """Return torchvision's folder data set behind a loader."""
    geometry = [
        transforms.Resize((options.size, options.size), antialias=True),
        transforms.CenterCrop(options.crop),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET.mean, IMAGENET.std),
    ]
    folder = datasets.ImageFolder(str(root), transforms.Compose(geometry))
    return DataLoader(folder, options.batch_size, num_workers=options.workers)


def read(loader: DataLoader[Any], key: str | int) -> list[Tensor]:
    """Read all images, batch by batch."""
    return [batch[key] for batch in loader]


def compare(
    ours: Callable[[], list[Tensor]],
    theirs: Callable[[], list[Tensor]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Run both in turn and return the images a second of each, and whether pixels agree."""
    same = all(torch.equal(one, two) for one, two in zip(ours(), theirs(), strict=True))
    seconds: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for repeat in range(options.repeats):
        pair = [("ours", ours), ("torchvision", theirs)]
        for name, run in pair if repeat % 2 else pair[::-1]:
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    fastest = {name: min(times) for name, times in seconds.items()}
    ratios = [two / one for one, two in zip(*seconds.values(), strict=True)]
    return {
        "images_per_second": {name: options.images / took for name, took in fastest.items()},
        "ratio": fastest["torchvision"] / fastest["ours"],
        "median_ratio": float(np.median(ratios)),
        "same_pixels": same,
        "seconds": seconds,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the files")
    parser.add_argument("--size", type=int, default=448, help="pixels resized to")
    parser.add_argument("--crop", type=int, default=392)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def _print(report: dict[str, Any]) -> None:
    sizes = f"{report['side']} -> {report['size']} -> {report['crop']} pixels"
    print(f"{report['images']} images, {sizes}, {report['workers']} workers")
    print(f"{'':6}{'ours':>10}{'torchvision':>13}{'ratio':>8}{'median':>8}  same pixels")
    for kind, row in report["runs"].items():
        speed = row["images_per_second"]
        print(
            f"{kind:6}{speed['ours']:8.1f}/s{speed['torchvision']:11.1f}/s"
            f"{row['ratio']:8.3f}{row['median_ratio']:8.3f}  {row['same_pixels']}"
        )


if __name__ == "__main__":
    main()
