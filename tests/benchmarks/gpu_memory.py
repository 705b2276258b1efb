"""Time stage 1 on random features against the number of images.

784 patches of 768 channels an image, in bfloat16, over memories of all images and of 1000 stored
ones; the smallest size also in float32. Sizes that would not fit into the memory or the time are
left out and named. `python -m tests.benchmarks.gpu_memory`
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from meds_plugin.memory.patch_vectors import PatchVectors, vector_bytes
from meds_plugin.memory.scores import expected_scores
from tests.benchmarks.common import measure, product_rate
from tests.benchmarks.gpu_part import Part

PATCHES, CHANNELS = 784, 768
COUNTS = (500, 1000, 2000, 4000, 8000, 16000)
STORED = 1000
SIDE = 8192  # of the product that tells the rate
RATIO = 0.1
_MARGIN = 5.0
_LONG = 1e14  # operations whose rate tells that of more
_NEEDED = 2.5  # times the vectors: them, distances and states (docs/cache.md)


def main() -> None:
    """Measure, from small to large, as long as there is time."""
    part = Part(__doc__)
    patches, channels, counts, stored, side = (
        (16, 8, (8, 24), 10, 128) if part.tiny else (PATCHES, CHANNELS, COUNTS, STORED, SIDE)
    )
    rates = {
        dtype: product_rate(part.device, dtype, (side,) * 3)
        for dtype in (torch.bfloat16, torch.float32)
    }
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    warm = _vectors(4, patches, channels, torch.bfloat16, part.device)
    expected_scores(warm, RATIO)
    slowest = 0.2  # share of the rate that is expected before there is a figure
    for count, dtype, limit in _sizes(counts, stored):
        work = 2 * _pairs(count, limit) * patches**2 * channels
        name = f"{count} images, {'all' if limit is None else limit} stored, {_name(dtype)}"
        size = vector_bytes(count, patches, channels, dtype=dtype, device=part.device)
        if not _fits(size, part.device):
            left_out.append(f"{name}: {_NEEDED * size / 1e9:.0f} GB")
        elif (expected := work / rates[dtype] / slowest) > part.left - _MARGIN:
            left_out.append(f"{name}: {expected:.0f} s were expected, {part.left:.0f} s left")
        else:
            part.start_peak()
            fill = partial(_vectors, count, patches, channels, dtype, part.device)
            filling, vectors = measure(fill, part.device)
            score = partial(expected_scores, vectors, RATIO, stored=limit)
            seconds, scores = measure(score, part.device)
            share = work / seconds / rates[dtype]
            if dtype is torch.bfloat16 and work > _LONG:
                slowest = 0.8 * share
            rows.append(
                {
                    "images": count,
                    "stored": limit,
                    "dtype": _name(dtype),
                    "vectors": filling,
                    "seconds": seconds,
                    "gigabytes": part.peak(),
                    "share_of_product_rate": share,
                    "mean": float(scores.mean()),
                }
            )
            del vectors, scores, fill, score
        part.add(
            {
                "patches": patches,
                "channels": channels,
                "product_gflops": {_name(kind): rate / 1e9 for kind, rate in rates.items()},
                "rows": rows,
                "left_out": left_out,
            }
        )


def _sizes(counts: tuple[int, ...], stored: int) -> list[tuple[int, torch.dtype, int | None]]:
    """Return images, type of the products, and how many are stored; the least work first."""
    sizes: list[tuple[int, torch.dtype, int | None]] = [(counts[0], torch.float32, None)]
    sizes += [(count, torch.bfloat16, None) for count in counts]
    sizes += [(count, torch.bfloat16, stored) for count in counts if count > stored]
    return sorted(sizes, key=lambda size: _pairs(size[0], size[2]))


def _pairs(count: int, stored: int | None) -> float:
    return count * (count - 1) / 2 if stored is None else count * stored


def _vectors(
    count: int, patches: int, channels: int, dtype: torch.dtype, device: torch.device
) -> PatchVectors:
    draw = torch.Generator(device).manual_seed(0)
    vectors = PatchVectors(count, patches, channels, dtype=dtype, device=device)
    for start in range(0, count, 100):
        places = range(start, min(start + 100, count))
        found = torch.randn(len(places), patches, channels, device=device, generator=draw)
        vectors.put(places, found)
    return vectors


def _fits(size: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    torch.cuda.empty_cache()
    return _NEEDED * size < torch.cuda.mem_get_info(device)[0]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
