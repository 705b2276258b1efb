"""Trains each example alone and by MeDS on contaminated pictures, and prints how well it finds.

By hand: ``python -m tests.examples.compare [NAME ...]``; about 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import TYPE_CHECKING

import lightning as L
import torch

from meds_plugin import AnomalyDataModule, MeDSWrapper, OptimizerSettings, evaluate
from meds_plugin.data import DataSettings, synthetic_split
from tests.examples import autoencoder, teacher_student, transformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from meds_plugin.data import Split
    from meds_plugin.stages import Method

EXAMPLES: dict[str, Callable[[], nn.Module]] = {
    "autoencoder": autoencoder.make,
    "teacher_student": teacher_student.make,
    "transformer": transformer.make,
}
RUNS: tuple[tuple[Method, float], ...] = (("plain", 0.0), ("plain", 0.4), ("meds", 0.4))


def data(noise: float, split: Split | None = None) -> AnomalyDataModule:
    """Return the drawn pictures of the default run, with ``noise`` defective ones a normal one."""
    split = synthetic_split() if split is None else split
    settings = DataSettings(noise=noise)
    return AnomalyDataModule(source=split, settings=settings, image_size=128, batch_size=8)


def train(
    detector: nn.Module, datamodule: AnomalyDataModule, method: Method, *, steps: int, lr: float
) -> dict[str, float]:
    """Train a detector and return its metrics."""
    model = MeDSWrapper(
        detector,
        method=method,
        distill_steps=steps,
        finetune_steps=steps,
        optimizer=OptimizerSettings(lr=lr, final_lr=lr / 10, warmup=min(100, steps // 3)),
    )
    trainer = L.Trainer(
        max_steps=model.total_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule)
    found: dict[str, float] = evaluate(model, datamodule)["mean"]
    return found


def main() -> None:
    """Compare what is named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", help=f"default: {', '.join(EXAMPLES)}")
    parser.add_argument("--steps", type=int, default=400, help="of each of the two stages")
    parser.add_argument("--lr", type=float, default=2e-3)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in given.examples or EXAMPLES:
        for method, noise in RUNS:
            start = time.perf_counter()
            found = train(EXAMPLES[name](), data(noise), method, steps=given.steps, lr=given.lr)
            print(
                f"{name:16} {method:6} noise {noise:g}: I-AUROC {found['I-AUROC']:.3f}  "
                f"P-AP {found['P-AP']:.3f}  ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
