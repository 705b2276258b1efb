"""Stage 1 with a limited number of stored images: time, memory, and how well it ranks.

    python -m tests.benchmarks.stored
    python -m tests.benchmarks.stored --features FILE --ratios 0.05,0.1,0.2 --stored 250,500,1000

The first measures random features of growing numbers of images. The second takes an npz file with
``features`` [N, P, D] and ``injected`` [N], such as ``--encode`` writes of a run's training images,
and prints AUPRC against the exact scores, over seeds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from meds_plugin.config.build import build_datamodule, build_detector
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.refinement import refined_scores
from meds_plugin.memory.scores import expected_scores, stored_scores
from meds_plugin.memory.stored import stored_images
from meds_plugin.ranking import auprc
from meds_plugin.runs.read import read_config

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATCHES, _CHANNELS = 64, 128


def measure_times(counts: Sequence[int], stored: int) -> list[dict[str, float]]:
    """Return the seconds of stage 1 on random features, for each number of images."""
    rows = []
    for count in counts:
        generator = torch.Generator().manual_seed(0)
        vectors = PatchVectors(count, _PATCHES, _CHANNELS, device=torch.device("cpu"))
        for start in range(0, count, 500):
            part = torch.randn(min(500, count - start), _PATCHES, _CHANNELS, generator=generator)
            vectors.put(range(start, start + len(part)), part)
        begin = time.perf_counter()
        expected_scores(vectors, 0.1, stored=stored)
        limited = time.perf_counter() - begin
        rows.append({"images": count, "limited": limited})
        print(f"{count:6d} images: {limited:7.1f} s with {stored} stored", flush=True)
    return rows


def encode(run: Path, file: Path) -> None:
    """Write the memory features of a run's training images."""
    config = read_config(run)
    data = build_datamodule(config)
    data.setup()
    view = DetectorView(build_detector(config), default_features)
    data.preprocess.normalization = view.normalization
    images = EncodedImages(ImageReader(data.train_dataloader()), view)
    parts = [
        features
        for _, features, _ in images.features(
            range(len(images)), device=torch.device("cpu"), progress="features"
        )
    ]
    injected = np.array([bool(each) for each in data.train.injected])
    np.savez(file, features=torch.cat(parts).half().numpy(), injected=injected)


def measure_ranking(
    file: Path, ratios: Sequence[float], limits: Sequence[int], seeds: int
) -> list[dict[str, float]]:
    """Return AUPRC of both looks, exact and over stored images."""
    with np.load(file, allow_pickle=False) as archive:
        features = torch.from_numpy(archive["features"]).float()
        injected = archive["injected"].tolist()
    vectors = PatchVectors.of(features)
    rows = []
    for ratio in ratios:
        for limit in [0, *limits]:
            found = []
            for seed in range(seeds if limit else 1):
                generator = torch.Generator().manual_seed(seed)
                some = stored_images(len(vectors), limit or None, generator=generator)
                if some is None:
                    maps = expected_scores(vectors, ratio)
                else:
                    maps = stored_scores(vectors, ratio, some)
                scores = refined_scores(vectors, maps, keep=0.7, ratio=0.2, stored=some)
                first = maps.topk(max(1, maps.shape[1] // 100), dim=1).values.mean(1)
                found.append((auprc(first, injected), auprc(scores, injected)))
            both = np.array(found, float)
            means, spread = both.mean(0), both.std(0)
            rows.append({"ratio": ratio, "stored": limit, "first": means[0], "second": means[1]})
            looks = ", ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True))
            print(f"ratio {ratio} stored {limit or 'all'}: AUPRC of both looks {looks}", flush=True)
    return rows


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="500,1000,2000,4000,8000")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--encode", type=Path, help="a run whose features to write into --features")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--ratios", default="0.1")
    parser.add_argument("--stored", default="250,500,1000")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.encode:
        encode(given.encode, given.features)
    elif given.features:
        ratios = [float(part) for part in given.ratios.split(",")]
        limits = [int(part) for part in given.stored.split(",")]
        measure_ranking(given.features, ratios, limits, given.seeds)
    else:
        measure_times([int(part) for part in given.counts.split(",")], given.limit)


if __name__ == "__main__":
    main()
