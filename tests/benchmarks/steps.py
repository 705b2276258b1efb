"""Compare training steps and selection passes with and without the cache of encodings.

Both fits run in one process, in turn, on the same images; the shortest time of each kind of step
counts. In float32, the losses of all steps must be the same, bit for bit. (Otherwise images are
encoded once in float32, or in each step in the trainer's precision.)
`python -m tests.benchmarks.steps --output FILE`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from meds_plugin.encoding.scoring import selection_scores
from meds_plugin.wrapper import MeDSWrapper
from tests.backbones.small import noisy_images
from tests.benchmarks.common import (
    WITHOUT_CACHE,
    clock,
    detector_of,
    machine,
    measure,
    options_of,
    show,
    write,
)
from tests.toys import quiet_trainer

if TYPE_CHECKING:
    from torch import Tensor

CPU = torch.device("cpu")
SIZES = {
    "images": (48, "training images"),
    "batch": (8, "images of a step"),
    "size": (224, "side of an image in pixels"),
    "depth": (2, "decoder blocks"),
    "width": (128, "of the decoder"),
    "steps": (12, "of each training stage"),
    "repeats": (2, "fits of each kind"),
    "precision": ("32-true", "of the trainer"),
}


class Recorder(L.Callback):
    """Notes time and loss of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[Tensor] = []
        self._start = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._start = clock(CPU)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Stop it."""
        self.seconds.append(clock(CPU) - self._start)
        self.losses.append(outputs["loss"].detach())


def main() -> None:
    """Measure, print a table, write figures where asked; fail where losses differ."""
    options = options_of(__doc__, SIZES)
    images = noisy_images(options.images, size=options.size, defective=range(0, options.images, 5))
    kinds: dict[str, dict[str, Any]] = {"with": {}, "without": WITHOUT_CACHE}
    best: dict[str, dict[str, float]] = {}
    losses: dict[str, Tensor] = {}
    for _ in range(options.repeats):
        for kind, settings in kinds.items():
            found, losses[kind] = fit(images, options, settings)
            before = best.setdefault(kind, found)
            best[kind] = {key: min(value, before[key]) for key, value in found.items()}
    same = torch.equal(losses["with"], losses["without"])
    ratios = {key: best["without"][key] / best["with"][key] for key in best["with"]}
    rows = [
        (key, 1e3 * best["with"][key], 1e3 * best["without"][key], ratios[key])
        for key in best["with"]
    ]
    show(
        f"Dinomaly on the default encoder, {options.images} images of {options.size} px, batch "
        f"{options.batch}, {options.steps} + {options.steps} steps, CPU ms",
        ("", "with cache", "without", "ratio"),
        rows,
    )
    print(f"losses of all {len(losses['with'])} steps identical: {'yes' if same else 'NO'}")
    report = {**vars(options), "output": None, "machine": machine(CPU)}
    write({**report, "seconds": best, "ratios": ratios, "identical": same}, options.output)
    if not same and options.precision == "32-true":
        sys.exit(1)


def fit(images: Tensor, options: Any, settings: dict[str, Any]) -> tuple[dict[str, float], Tensor]:
    """Train once; return the seconds of each part and the losses of all steps."""
    model = MeDSWrapper(
        detector_of(options),
        distill_steps=options.steps,
        finetune_steps=options.steps,
        **settings,
    )
    recorder = Recorder()
    trainer = quiet_trainer(model.total_steps, callbacks=[recorder], precision=options.precision)
    loader = DataLoader(TensorDataset(images), batch_size=options.batch)
    whole, _ = measure(lambda: trainer.fit(model, loader), CPU)
    stream = model.stream
    if stream is None or model.memory is None or model.selection is None:
        raise RuntimeError
    scoring, _ = measure(
        lambda: selection_scores(stream.images, top=0.01, device=CPU), CPU, repeats=2
    )
    memory, _ = measure(lambda: _memory_again(model, trainer), CPU)
    half = options.steps
    seconds = {
        "distillation step": min(recorder.seconds[1:half]),
        "fine-tuning step": min(recorder.seconds[half + 1 :]),
        "selection pass": scoring,
        # All but stage 1: encoding once, where that is done, is part of it.
        "both training stages": whole - memory,
    }
    return seconds, torch.stack(recorder.losses)


def _memory_again(model: MeDSWrapper, trainer: L.Trainer) -> None:
    """Do stage 1 once more, to know its time."""
    assert model.memory is not None
    model.memory.maps = None
    model.memory.on_fit_start(trainer, model)


if __name__ == "__main__":
    main()
