"""What the benchmarks share: clocks, the machine's matrix-product rate, tables and JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from backbones.dinomaly import Dinomaly
from meds_plugin.encoders.build import build_encoder
from meds_plugin.encoders.default import LAYERS, MODEL, PYRAMID
from meds_plugin.encoding.cache.settings import CacheSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "WITHOUT_CACHE",
    "clock",
    "detector_of",
    "machine",
    "measure",
    "options_of",
    "product_rate",
    "show",
    "write",
]

T = TypeVar("T")

WITHOUT_CACHE: dict[str, Any] = {
    "cache": CacheSettings(gb=0)
}  # what makes `MeDSWrapper` encode every time


def detector_of(options: argparse.Namespace) -> Dinomaly:
    """Return Dinomaly on the default encoder, by the options ``size``, ``depth`` and ``width``."""
    encoder = build_encoder(model=MODEL, image_size=options.size, layers=LAYERS, pyramid=PYRAMID)
    return Dinomaly(encoder, decoder_depth=options.depth, width=options.width)


def clock(device: torch.device) -> float:
    """Return seconds: of the processor's work, which other jobs hardly disturb, or of a device."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(run: Callable[[], T], device: torch.device, *, repeats: int = 1) -> tuple[float, T]:
    """Return the shortest time in seconds, for what disturbs only ever adds, and the result."""
    best = float("inf")
    for _ in range(repeats):
        start = clock(device)
        result = run()
        best = min(best, clock(device) - start)
    return best, result


def product_rate(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int] = (2048, 2048, 2048)
) -> float:
    """Return the floating-point operations a second of a product ``[a, b] @ [c, b].T``.

    Args:
        device: Where.
        dtype: Of both factors and the result.
        shape: (a, b, c).
    """
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    times = max(1, 2048**3 // (rows * inner * columns))

    def run() -> None:
        for _ in range(times):
            torch.mm(left, right.t(), out=out)

    run()
    seconds, _ = measure(run, device, repeats=5)
    return 2 * rows * inner * columns * times / seconds


def options_of(doc: str | None, sizes: dict[str, tuple[Any, str]]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        doc: The benchmark's docstring.
        sizes: For each option its default, which gives the type, and what it means.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    for name, (default, meaning) in sizes.items():
        kind = type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (1)")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    return options


def machine(device: torch.device) -> dict[str, Any]:
    """Return what figures depend on."""
    name = platform.machine() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "CPU seconds" if device.type == "cpu" else "seconds",
    }


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers to three digits, nothing where there is no value."""
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    print(f"\n{title}")
    for line in [list(columns), *cells]:
        first, *others = (cell for cell in line)
        padded = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *padded]))


def write(report: dict[str, Any], path: Path | None) -> None:
    """Write a report as JSON, where a path is given."""
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
