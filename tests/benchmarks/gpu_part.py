"""What the parts of the GPU benchmark share: their options, their time, their output."""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from meds_plugin.utils.atomic import replacing
from tests.benchmarks.common import machine

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Part"]


class Part:
    """A part's command line and report, written anew with every figure.

    Args:
        doc: The part's docstring.

    Attributes:
        device: Where to measure.
        tiny: Whether at sizes that a CPU can do.
        report: What was found so far.
    """

    def __init__(self, doc: str | None) -> None:
        self._start = time.monotonic()
        parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
        parser.add_argument("--device", default="cuda", help="cuda or cpu")
        parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
        parser.add_argument("--seconds", type=float, default=300.0, help="to measure for")
        parser.add_argument("--output", type=Path, help="write the figures here as JSON")
        options = parser.parse_args()
        self.device = torch.device(options.device)
        self.tiny: bool = options.tiny
        self._seconds: float = options.seconds
        self._output: Path | None = options.output
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        self.report: dict[str, Any] = {"machine": machine(self.device)}

    @property
    def left(self) -> float:
        """Seconds until the part is ended."""
        return self._seconds - (time.monotonic() - self._start)

    def add(self, found: Mapping[str, Any]) -> None:
        """Add figures to the report and write it."""
        self.report |= found
        if self._output is not None:
            with replacing(self._output) as file:
                file.write_text(json.dumps(self.report, indent=2) + "\n")

    def start_peak(self) -> None:
        """Begin to look for the highest use of the GPU's memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float | None:
        """Return that use in GB (10^9 bytes); ``None`` on a CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / 1e9
