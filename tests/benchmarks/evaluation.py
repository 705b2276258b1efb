"""Measure pixel metrics of many maps: peak memory, time, and the difference to all in memory.

Maps are made up on the fly, so that only what the metrics hold counts. Peaks are the kernel's count
of the largest resident size, less what the libraries take; ``all in memory`` holds a part of the
maps, masks and scores at once and is compared with the same part counted piece by piece, exactly
and with few thresholds.
`python -m tests.benchmarks.evaluation --output FILE`
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from meds_plugin.metrics.aupimo import aupimo_of_parts
from meds_plugin.metrics.curves import MAX_THRESHOLDS, curve_of_parts
from meds_plugin.utils.process import peak_memory
from meds_plugin.utils.rng import torch_generator
from tests.benchmarks.common import machine, options_of, show, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_PART = 256  # maps
_FEW = 1 << 12  # thresholds, far fewer than distinct scores


def made_up(images: int, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield smooth maps ``[n, R, R]`` and masks, half of which have a defect of about 1 %."""
    across = torch.arange(side).float() / side
    for start in range(0, images, _PART):
        count = min(_PART, images - start)
        generator = torch_generator(0, "evaluation", start)
        coarse = torch.rand(count, 1, 16, 16, generator=generator)
        maps = F.interpolate(coarse, size=(side, side), mode="bilinear")[:, 0]
        centre = torch.rand(2, count, 1, 1, generator=generator)
        far = (across[:, None] - centre[0]).square() + (across - centre[1]).square()
        masks = (far < 0.004) & (torch.arange(count) % 2 == 1)[:, None, None]
        yield maps.add_(masks, alpha=0.3), masks


def measured(
    images: int, side: int, *, limit: int = MAX_THRESHOLDS, whole: bool = False
) -> tuple[dict[str, float], float]:
    """Return the metrics of that many maps, and the seconds they took."""
    parts = list(made_up(images, side)) if whole else []
    if whole:
        parts = [(torch.cat([m for m, _ in parts]), torch.cat([m for _, m in parts]))]
    start = time.perf_counter()

    def again() -> Iterator[tuple[Tensor, Tensor]]:
        yield from parts or made_up(images, side)

    curve = curve_of_parts(again, unit="pixels", regions=True, limit=limit)
    values = {
        "P-AUROC": curve.auroc(),
        "P-AP": curve.average_precision(),
        "P-F1max": curve.f1_max(),
        "P-AUPRO": curve.aupro(),
        "P-AUPIMO": float(aupimo_of_parts(again, images * side**2).mean()),
        "thresholds": len(curve.hits),
    }
    return values, time.perf_counter() - start


def main() -> None:
    """Measure, print a table, write figures where asked."""
    sizes: dict[str, tuple[Any, str]] = {
        "images": (20_000, "maps"),
        "subset": (1024, "maps that are also held in memory"),
        "side": (256, "pixels of a map's side"),
    }
    options = options_of(__doc__, sizes)
    nothing = peak_memory()
    rows: list[dict[str, Any]] = []
    # In this order, since a peak stays.
    for name, images, settings in (
        ("in parts", options.subset, {}),
        ("few thresholds", options.subset, {"limit": _FEW}),
        ("in parts", options.images, {}),
        ("all in memory", options.subset, {"whole": True}),
    ):
        values, seconds = measured(images, options.side, **settings)
        peak = peak_memory()
        row = {"how": name, "images": images, "seconds": seconds, **values}
        row["peak_gb"] = None if peak is None or nothing is None else peak - nothing
        rows.append(row)
        print(row, flush=True)
    exact = rows[-1]
    for row in rows:
        same = row["images"] == exact["images"]
        row["difference"] = (
            max(abs(row[key] - exact[key]) for key in exact if key.startswith("P-"))
            if same
            else None
        )
    columns = ("how", "images", "thresholds", "seconds", "peak_gb", "difference")
    show("pixel metrics", columns, [[row[key] for key in columns] for row in rows])
    write({"machine": machine(torch.device("cpu")), "rows": rows}, options.output)


if __name__ == "__main__":
    main()
