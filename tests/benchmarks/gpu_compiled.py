"""Time training steps with and without torch.compile.

The steps of `gpu_setting` on few images, compiled as `MeDSWrapper(compile=True)` does. The first
step of each stage has the time of the compilation.
`python -m tests.benchmarks.gpu_compiled`
"""

from __future__ import annotations

from functools import partial

import torch

from meds_plugin.detectors.compiling import compile_detector
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.default import default_features
from tests.benchmarks.common import measure
from tests.benchmarks.gpu_part import Part
from tests.benchmarks.gpu_setting import Benchmark


def main() -> None:
    """Measure."""
    part = Part(__doc__)
    benchmark = Benchmark(part, {"images": 20 if part.tiny else 256, "categories": 1})
    encoded, _ = benchmark.encode()
    targets = torch.rand(len(encoded), *benchmark.detector.encoder.grid, device=part.device)
    part.add({"batch": benchmark.batch, "size": benchmark.sizes["size"]})
    plain = benchmark.steps(encoded, targets)
    part.add({"plain": {name: benchmark.per_step(step) for name, step in plain.items()}})
    backend = "aot_eager" if part.tiny else "inductor"  # a CPU takes long for inductor
    compile_detector(DetectorView(benchmark.detector, default_features), backend)
    first, compiled = {}, {}
    for name, step in benchmark.steps(encoded, targets).items():
        first[name], _ = measure(partial(next, step), part.device)
        compiled[name] = benchmark.per_step(step)
        part.add({"first_compiled": first, "compiled": compiled})


if __name__ == "__main__":
    main()
