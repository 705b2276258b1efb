"""How well stage 1 ranks with a limited number of stored images (`memory_peak` has its costs).

    python -m tests.benchmarks.stored --encode RUN --features FILE
    python -m tests.benchmarks.stored --features FILE --ratios 0.05,0.1,0.2 --stored 250,500,1000

The first writes features [N, P, D] of a run's training images and which are defective, the second
prints AUPRC of both looks with so many stored images, over seeds, and the rank correlation with
the exact scores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from meds_plugin.config.build import build_datamodule, build_detector
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.memory.scores import gap_curve
from meds_plugin.memory.stored import stored_images
from meds_plugin.metrics import image_score
from meds_plugin.ranking import auprc
from meds_plugin.runs.read import read_config
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def encode(run: Path, file: Path, every: int) -> None:
    """Write the memory features of a run's training images, of every so many rows and columns."""
    config = read_config(run)
    data = build_datamodule(config)
    data.setup()
    view = DetectorView(build_detector(config), default_features)
    data.preprocess.normalization = view.normalization
    images = EncodedImages(ImageReader(data.train_dataloader()), view)
    parts = [
        features.unflatten(1, grid)[:, ::every, ::every].flatten(1, 2).half()
        for _, features, grid in images.features(
            range(len(images)), device=torch.device("cpu"), progress="features"
        )
    ]
    injected = np.array([bool(each) for each in data.train.injected])
    np.savez(file, features=torch.cat(parts).numpy(), injected=injected)


def measure_ranking(
    file: Path, ratios: Sequence[float], limits: Sequence[int], seeds: int
) -> list[dict[str, Any]]:
    """Return AUPRC of both looks, exact and over stored images."""
    with np.load(file, allow_pickle=False) as archive:
        features = torch.from_numpy(archive["features"]).float()
        injected = archive["injected"].tolist()
    vectors = PatchVectors.of(features)
    rows: list[dict[str, Any]] = []
    exact: dict[float, tuple[Tensor, Tensor]] = {}  # scores of both looks
    for limit in [None, *limits]:
        found: dict[float, list[list[float]]] = {ratio: [] for ratio in ratios}
        for seed in range(seeds if limit else 1):
            curve = gap_curve(vectors, ratios, stored=limit, seed=seed)
            # The same choice once more.
            generator = torch_generator(seed, "stored")
            some = stored_images(len(vectors), limit, generator=generator)
            for ratio, maps in zip(ratios, curve, strict=True):
                first = image_score(maps[:, None], 0.01)
                second = refined_scores(vectors, maps, keep=0.7, ratio=0.2, stored=some)
                known = exact.setdefault(ratio, (first, second))
                alike = [
                    float(spearmanr(*pair).statistic)
                    for pair in zip((first, second), known, strict=True)
                ]
                found[ratio].append([auprc(first, injected), auprc(second, injected), *alike])
        for ratio, values in found.items():
            means, spread = np.mean(values, axis=0), np.std(values, axis=0)
            rows.append({"ratio": ratio, "stored": limit or 0, "means": means.tolist()})
            looks = [f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True)]
            print(
                f"stored {limit or 'all'}, ratio {ratio}: AUPRC of both looks {looks[0]}, "
                f"{looks[1]}; rank correlation with all stored {looks[2]}, {looks[3]}",
                flush=True,
            )
    return rows


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encode", type=Path, help="a run whose features to write into --features")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--every", type=int, default=2, help="patches are thinned by --encode")
    parser.add_argument("--ratios", default="0.1")
    parser.add_argument("--stored", default="250,500,1000")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.encode:
        encode(given.encode, given.features, given.every)
    else:
        ratios = [float(part) for part in given.ratios.split(",")]
        limits = [int(part) for part in given.stored.split(",")]
        measure_ranking(given.features, ratios, limits, given.seeds)


if __name__ == "__main__":
    main()
