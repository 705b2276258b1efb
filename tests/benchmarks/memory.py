"""Compare the closed-form memory ensemble with the loop over sampled memories.

Both run in one process, in turn; the shortest of the repeats in CPU seconds counts, for other work
on the machine only ever adds. The loop scores a sample of the images, all of which cost it the
same, against all memories; its time is scaled up to all images. The rate of matrix products is
that of a large square one, and that of products of the shape that the features give.
`python -m tests.benchmarks.memory --output FILE`
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch
from scipy.stats import spearmanr
from torch import Tensor

from meds_plugin.memory import bootstrap_scores, expected_scores, sample_subsets
from meds_plugin.metrics import image_score
from meds_plugin.utils.rng import torch_generator
from tests.benchmarks.common import measure, options_of, product_rate, write
from tests.benchmarks.reference import memory_loop

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

CPU = torch.device("cpu")
RATIO = 0.1
SIZES = {
    "images": (120, "images"),
    "patches": (784, "patches of each"),
    "channels": (384, "channels"),
    "memories": (100, "sampled memories of the loop"),
    "loop-images": (2, "images that the loop scores"),
    "repeats": (2, "times that each runs"),
}


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = options_of(__doc__, SIZES)
    features = synthetic_features(options.images, options.patches, options.channels)
    generator = torch_generator(0, "memory", "")
    subsets = sample_subsets(options.images, RATIO, options.memories, generator=generator)
    sample = torch.arange(options.images)[:: max(1, options.images // options.loop_images)]

    runs: dict[str, Callable[[], Tensor]] = {
        "expected, float32": lambda: expected_scores(features, RATIO),
        "expected, bfloat16": lambda: expected_scores(features, RATIO, dtype=torch.bfloat16),
        "bootstrap, float32": lambda: bootstrap_scores(features, subsets),
        "loop over memories": lambda: memory_loop(features, subsets, sample),
    }
    seconds = dict.fromkeys(runs, float("inf"))
    peaks = {"float32": 0.0, "bfloat16": 0.0}
    alike = dict(peaks)
    # As many columns as fit a block that stays in a processor's cache.
    block = (options.patches, options.channels, max(1, (1 << 18) // options.patches))
    scores: dict[str, Tensor] = {}
    expected_scores(features[:4], RATIO)  # loads libraries
    for _ in range(options.repeats):
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            peaks[name] = max(peaks[name], product_rate(CPU, dtype) / 1e9)
            alike[name] = max(alike[name], product_rate(CPU, dtype, block) / 1e9)
        for name, run in runs.items():
            took, scores[name] = measure(run, CPU)
            seconds[name] = min(seconds[name], took)
    seconds["loop over memories"] *= options.images / len(sample)
    report = _report(options, seconds, peaks, alike, scores, sample)
    _print(report)
    write(report, options.output)


def synthetic_features(images: int, patches: int, channels: int) -> Tensor:
    """Return ``[N, P, D]`` features: a texture a position, a shift an image, rare defects."""
    generator = torch_generator(0, "benchmark", images, patches, channels)
    textures = torch.randn(32, channels, generator=generator)
    layout = torch.randint(32, (patches,), generator=generator)
    features = textures[layout] + 0.4 * torch.randn(images, 1, channels, generator=generator)
    features = features + 0.5 * torch.randn(images, patches, channels, generator=generator)
    for image in range(0, images, 5):
        size = 1 + patches // 50 + image % 7
        defect = torch.randn(channels, generator=generator)
        features[image, image : image + size] += (0.3 + 0.1 * (image % 11)) * defect
    return features


def _report(
    options: argparse.Namespace,
    seconds: dict[str, float],
    peaks: dict[str, float],
    alike: dict[str, float],
    scores: dict[str, Tensor],
    sample: Tensor,
) -> dict[str, object]:
    reference = scores["loop over memories"]
    pairs = options.images * (options.images - 1) / 2
    work = pairs * 2 * options.patches**2 * options.channels / 1e9
    rows = {}
    for name, result in scores.items():
        dtype = "bfloat16" if "bfloat16" in name else "float32"
        difference = ((result if "loop" in name else result[sample]) - reference).abs()
        rows[name] = {
            "seconds": seconds[name],
            "speedup": seconds["loop over memories"] / seconds[name],
            "share_of_peak": None if "loop" in name else work / seconds[name] / peaks[dtype],
            "share_of_alike": None if "loop" in name else work / seconds[name] / alike[dtype],
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
        }
    exact, half = (
        image_score(scores[f"expected, {kind}"][..., None], top=0.01)
        for kind in ("float32", "bfloat16")
    )
    return {
        "images": options.images,
        "patches": options.patches,
        "channels": options.channels,
        "memories": options.memories,
        "loop_images": len(sample),
        "threads": options.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "peak_gflops": peaks,
        "alike_gflops": alike,
        "rank_agreement_bfloat16": float(spearmanr(exact.numpy(), half.numpy()).statistic),
        "bfloat16_max_difference": float(
            (scores["expected, float32"] - scores["expected, bfloat16"]).abs().max()
        ),
        "runs": rows,
    }


def _print(report: dict[str, object]) -> None:
    size = ", ".join(f"{report[key]} {key}" for key in ("images", "patches", "channels"))
    print(f"{size}, {report['memories']} memories, {report['threads']} threads")
    print(
        f"{'':20}{'CPU s':>9}{'speedup':>9}{'of peak':>9}{'of alike':>9}"
        f"{'max diff':>10}{'mean diff':>11}"
    )
    runs = report["runs"]
    assert isinstance(runs, dict)
    for name, row in runs.items():
        shares = (row["share_of_peak"], row["share_of_alike"])
        cells = "".join(f"{'-' if each is None else format(each, '.0%'):>9}" for each in shares)
        print(
            f"{name:20}{row['seconds']:9.3f}{row['speedup']:9.1f}"
            f"{cells}"
            f"{row['max_difference']:10.5f}{row['mean_difference']:11.6f}"
        )
    print(f"matrix products, GFLOP/s: square {report['peak_gflops']}")
    print(f"                         of this shape {report['alike_gflops']}")
    print(
        "bfloat16 against float32: rank correlation of image scores "
        f"{report['rank_agreement_bfloat16']:.5f}, "
        f"max difference {report['bfloat16_max_difference']:.5f}"
    )


if __name__ == "__main__":
    main()
