"""Time the paper's setting on a GPU, and the reference's loops beside it.

DINOv2-reg base with random weights on images made up on the device, in bfloat16: encoding, memory
scores, training steps, a selection pass, with everything on the device (a run takes what exceeds
`cache.gb` from the host or from files); and a float32 rendering of what the reference does
(`tests.benchmarks.reference`). Both totals are worked out from these for all steps, with as many
selection passes as estimated below. No GPU, no timings. `python -m tests.benchmarks.gpu`
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.dinomaly import Dinomaly
from meds_plugin.encoders.build import build_encoder
from meds_plugin.memory import expected_scores, sample_subsets
from meds_plugin.metrics import image_score
from meds_plugin.training.distillation import distillation_loss
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW
from meds_plugin.utils.rng import torch_generator
from tests.benchmarks.common import clock, machine, measure, product_rate, show, write
from tests.benchmarks.reference import ReferenceLoop, memory_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAPER: dict[str, Any] = {
    "images": 4796,
    "categories": 15,
    "size": 392,
    "batch": 16,
    "scoring": 64,
    "memories": 100,
    "steps": 10_000,
    "measured_steps": 50,
    "loop_images": 4,
    "layers": tuple(range(2, 10)),
    "model_args": {},
    "side": 8192,  # of the product that tells the rate
}
TINY = PAPER | {
    "images": 20,
    "categories": 2,
    "size": 56,
    "batch": 4,
    "scoring": 8,
    "memories": 3,
    "measured_steps": 2,
    "loop_images": 1,
    "layers": (1, 2),
    "model_args": {"embed_dim": 32, "depth": 4, "num_heads": 2},
    "side": 256,
}
# docs/method.md, section 4: a selection pass after each pass, an estimated 59 in 10 000
# steps of 16 on 3991 images: a pass is over 0.68 of the images.
KEPT = 10_000 * 16 / 59 / 3991


def main() -> None:
    """Measure, print a table, write figures where asked."""
    options = _options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("GPU benchmark: not run, there is no GPU here")
        return
    sizes = TINY if options.tiny else PAPER
    report = Benchmark(device, sizes).run()
    _print(report)
    write(report, options.output)


class Benchmark:
    """The measurements, in the order of a run.

    Args:
        device: Where everything happens.
        sizes: As `PAPER`.
    """

    def __init__(self, device: torch.device, sizes: dict[str, Any]) -> None:
        self.device = device
        self.sizes = sizes
        self.batch: int = sizes["batch"]
        self.draw = torch.Generator(device).manual_seed(0)
        self.pool = self._images(2 * sizes["scoring"])
        encoder = build_encoder(
            model="vit_base_patch14_reg4_dinov2",
            image_size=sizes["size"],
            layers=sizes["layers"],
            weights="random",
            model_args=sizes["model_args"],
        )
        self.detector = Dinomaly(encoder).to(device)

    def run(self) -> dict[str, Any]:
        """Return all figures; times in seconds."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        rate = product_rate(self.device, torch.bfloat16, (self.sizes["side"],) * 3)
        ours, work = self.ours()
        gigabytes = None
        if self.device.type == "cuda":
            gigabytes = torch.cuda.max_memory_allocated(self.device) / 1e9
        theirs = self.theirs()
        return {
            **self.sizes,
            "machine": machine(self.device),
            "product_gflops": rate / 1e9,
            "gpu_gigabytes": gigabytes,
            "ours": ours,
            "share_of_product_rate": {key: work[key] / ours[key] / rate for key in work},
            "ours_total": self.total(ours),
            "reference": theirs,
            "reference_total": self.total(theirs),
            "ratio": self.total(theirs) / self.total(ours),
        }

    def total(self, seconds: dict[str, float]) -> float:
        """Work the whole run out."""
        steps: int = self.sizes["steps"]
        passes: float = 1 + steps / max(1.0, KEPT * self.sizes["images"] / self.batch)
        return (
            seconds["encoding"]
            + seconds["memory scores"]
            + steps * (seconds["distillation step"] + seconds["fine-tuning step"])
            + passes * seconds["selection pass"]
        )

    def ours(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return seconds of each part, and the operations of those with a share of the rate."""
        seconds: dict[str, float] = {}
        work: dict[str, float] = {}
        encoding, (encoded, features) = measure(self._encode, self.device)
        seconds["encoding"] = encoding
        with FlopCounterMode(display=False) as counter, self._half():
            few = self.pool[: self.batch]
            self.detector.encode_and_features(few)
        work["encoding"] = counter.get_total_flops() / self.batch * self.sizes["images"]
        groups = self._groups()
        expected_scores(features[:2].float(), 0.1, dtype=torch.bfloat16)
        seconds["memory scores"], maps = measure(
            lambda: torch.cat(
                [expected_scores(features[g].float(), 0.1, dtype=torch.bfloat16) for g in groups]
            ),
            self.device,
        )
        _, patches, channels = features.shape
        pairs = sum(len(group) * (len(group) - 1) / 2 for group in groups)
        work["memory scores"] = 2 * pairs * patches**2 * channels
        targets = maps.view(-1, *self.detector.encoder.grid)
        steps = self._steps(encoded, targets)
        for name, step in steps.items():
            with FlopCounterMode(display=False) as counter:
                next(step)
            work[name] = counter.get_total_flops()
            seconds[name] = self._per_step(step)
        seconds["selection pass"], _ = measure(lambda: self._score(encoded), self.device, repeats=2)
        return seconds, work

    def theirs(self) -> dict[str, float]:
        """Return seconds of the reference's parts, the memory's worked out from a sample."""
        loop = ReferenceLoop(self.detector, batch=self.batch)
        images, group = self.sizes["images"], self._groups()[0]
        few = self.pool[: self.batch]
        loop.features(few)
        some, _ = measure(lambda: loop.features(self.pool), self.device)
        features = self._images_features(loop, len(group))
        subsets = sample_subsets(
            len(features), 0.1, self.sizes["memories"], generator=torch_generator(0, "memory", "")
        )
        sample = torch.arange(self.sizes["loop_images"], device=self.device)
        scoring, maps = measure(lambda: memory_loop(features, subsets, sample), self.device)
        targets = maps[:1].repeat(len(few), 1).view(len(few), *loop.detector.encoder.grid)
        loop.score(few)
        scored, _ = measure(lambda: loop.score(self.pool), self.device)
        return {
            "encoding": some / len(self.pool) * images,
            "memory scores": scoring / len(sample) * images,
            "distillation step": self._per_step(
                loop.distill(few, targets) for _ in itertools.count()
            ),
            "fine-tuning step": self._per_step(loop.finetune(few) for _ in itertools.count()),
            "selection pass": scored / len(self.pool) * images,
        }

    def _images(self, count: int) -> Tensor:
        side = self.sizes["size"]
        return torch.randn(count, 3, side, side, device=self.device, generator=self.draw)

    def _images_features(self, loop: ReferenceLoop, count: int) -> Tensor:
        found = loop.features(self.pool)
        return found.repeat(-(-count // len(found)), 1, 1)[:count]

    def _groups(self) -> list[Tensor]:
        every = torch.arange(self.sizes["images"], device=self.device)
        return list(every.tensor_split(self.sizes["categories"]))

    def _half(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    @torch.no_grad()
    def _encode(self) -> tuple[Tensor, Tensor]:
        """Return ``[N, T, W]`` encodings and ``[N, P, D]`` features in bfloat16."""
        self.detector.eval()
        count, size = self.sizes["images"], self.sizes["scoring"]
        encoded, features = None, None
        for start in range(0, count, size):
            images = self.pool[: min(size, count - start)]
            with self._half():
                found = self.detector.encode_and_features(images)
            if encoded is None or features is None:
                encoded, features = (
                    torch.empty(count, *part.shape[1:], dtype=torch.bfloat16, device=self.device)
                    for part in found
                )
            encoded[start : start + size], features[start : start + size] = found
        if encoded is None or features is None:
            raise RuntimeError
        return encoded, features

    def _steps(self, encoded: Tensor, targets: Tensor) -> dict[str, Iterator[None]]:
        detector, settings = self.detector, OptimizerSettings()

        def steps(loss: Callable[[Tensor], Tensor]) -> Iterator[None]:
            params = detector.parameter_groups()[0]["params"]
            optimizer = StableAdamW(params, settings)
            detector.train()
            while True:
                index = torch.randint(
                    len(encoded), (self.batch,), device=self.device, generator=self.draw
                )
                with self._half():
                    value = loss(index)
                optimizer.zero_grad()
                torch.autograd.backward(value)
                nn.utils.clip_grad_norm_(params, settings.gradient_clip)
                optimizer.step()
                yield

        return {
            "distillation step": steps(
                lambda index: distillation_loss(
                    detector.anomaly_map(encoded[index]), targets[index]
                )
            ),
            "fine-tuning step": steps(
                lambda index: detector.loss(encoded[index], step=1000, total_steps=10_000)
            ),
        }

    def _per_step(self, step: Iterator[Any]) -> float:
        """Return the mean time of a step after the first ones."""
        for _ in range(2):
            next(step)
        count: int = self.sizes["measured_steps"]
        start = clock(self.device)
        for _ in range(count):
            next(step)
        return (clock(self.device) - start) / count

    @torch.no_grad()
    def _score(self, encoded: Tensor) -> Tensor:
        self.detector.eval()
        with self._half():
            parts = encoded.split(self.sizes["scoring"])
            return torch.cat([image_score(self.detector.anomaly_map(part), 0.01) for part in parts])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the benchmark")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args()
    if torch.device(options.device).type == "cpu" and not options.tiny:
        sys.exit("on a CPU give --tiny: the paper's sizes would take days")
    return options


def _print(report: dict[str, Any]) -> None:
    ours, theirs = report["ours"], report["reference"]
    names = [*ours, "total"]
    rows = []
    for name in names:
        own = report["ours_total"] if name == "total" else ours[name]
        other = report["reference_total"] if name == "total" else theirs[name]
        share = report["share_of_product_rate"].get(name)
        rows.append((name, own, other, other / own, None if share is None else f"{share:.0%}"))
    show(
        f"{report['images']} images of {report['size']} px, {report['categories']} categories, "
        f"batch {report['batch']}, {report['steps']} + {report['steps']} steps, on "
        f"{report['machine']['device']}",
        ("seconds", "ours, bf16", "reference, float32", "ratio", "of product rate"),
        rows,
    )
    rates = {
        "images/s of encoding": report["images"] / ours["encoding"],
        "distillation steps/s": 1 / ours["distillation step"],
        "fine-tuning steps/s": 1 / ours["fine-tuning step"],
        "matrix products, TFLOP/s": report["product_gflops"] / 1e3,
        "GPU memory, GB": report["gpu_gigabytes"],
    }
    show("Rates of ours", ("", "value"), rates.items())
    print("Worked out: totals; the reference's encoding, memory scores and selection pass")


if __name__ == "__main__":
    main()
