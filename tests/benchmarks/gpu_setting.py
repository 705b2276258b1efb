"""Time the paper's setting, and the reference's loops beside it.

DINOv2-reg base with random weights on images made up on the device, in bfloat16: encoding, memory
scores, training steps, a selection pass, with everything on the device (a run takes what exceeds
`cache.gb` from the host or from files); and a float32 rendering of what the reference does
(`tests.benchmarks.reference`). Both totals are worked out from these for all steps, with as many
selection passes as estimated below. `python -m tests.benchmarks.gpu_setting`
"""

from __future__ import annotations

import itertools
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
from tests.benchmarks.common import clock, measure, product_rate
from tests.benchmarks.gpu_part import Part
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
_STEPS_SECONDS = 15.0  # for all measured steps of a kind, of which there are at least so many
_LEAST = 2


def main() -> None:
    """Measure."""
    part = Part(__doc__)
    Benchmark(part).run()


class Benchmark:
    """The measurements, in the order of a run.

    Args:
        part: Where everything happens, how long, and what takes the figures.
        sizes: What differs from `PAPER`, or `TINY`.
    """

    def __init__(self, part: Part, sizes: dict[str, Any] | None = None) -> None:
        self.part = part
        self.device = device = part.device
        self.sizes = sizes = (TINY if part.tiny else PAPER) | (sizes or {})
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

    def run(self) -> None:
        """Report all figures; times in seconds."""
        rate = product_rate(self.device, torch.bfloat16, (self.sizes["side"],) * 3)
        self.part.start_peak()
        ours, work = self.ours()
        self.part.add(
            {
                **self.sizes,
                "product_gflops": rate / 1e9,
                "gpu_gigabytes": self.part.peak(),
                "ours": ours,
                "share_of_product_rate": {key: work[key] / ours[key] / rate for key in work},
                "ours_total": self.total(ours),
            }
        )
        theirs = self.theirs()
        total = self.total(theirs)
        self.part.add(
            {
                "reference": theirs,
                "reference_total": total,
                "ratio": total / self.total(ours),
            }
        )

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
        with torch.no_grad(), self._half():
            self.detector.eval().encode_and_features(self.pool[: self.sizes["scoring"]])  # warms up
        encoding, (encoded, features) = measure(self.encode, self.device)
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
        steps = self.steps(encoded, targets)
        for name, step in steps.items():
            with FlopCounterMode(display=False) as counter:
                next(step)
            work[name] = counter.get_total_flops()
            seconds[name] = self.per_step(step)
        self._score(encoded[: self.sizes["scoring"]])
        seconds["selection pass"], _ = measure(lambda: self._score(encoded), self.device)
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
            "distillation step": self.per_step(
                loop.distill(few, targets) for _ in itertools.count()
            ),
            "fine-tuning step": self.per_step(loop.finetune(few) for _ in itertools.count()),
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
    def encode(self) -> tuple[Tensor, Tensor]:
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

    def steps(self, encoded: Tensor, targets: Tensor) -> dict[str, Iterator[None]]:
        """Return endless training steps of both stages.

        Args:
            encoded: ``[N, T, W]`` encodings.
            targets: ``[N, h, w]`` memory scores.
        """
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

    def per_step(self, step: Iterator[Any]) -> float:
        """Return the mean time of a step after the first ones, of fewer where time is short."""
        for _ in range(2):
            next(step)
        start, done = clock(self.device), 0
        until = self.part.left - min(_STEPS_SECONDS, self.part.left / 4)
        while done < self.sizes["measured_steps"] and (done < _LEAST or self.part.left > until):
            next(step)
            done += 1
        return (clock(self.device) - start) / done

    @torch.no_grad()
    def _score(self, encoded: Tensor) -> Tensor:
        self.detector.eval()
        with self._half():
            parts = encoded.split(self.sizes["scoring"])
            return torch.cat([image_score(self.detector.anomaly_map(part), 0.01) for part in parts])


if __name__ == "__main__":
    main()
