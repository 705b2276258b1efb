"""Trains each example with and without MeDS on contaminated images, and prints its metrics.

By hand: ``python -m tests.examples.compare [NAME ...]``.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import torch

from meds_plugin import AnomalyDataModule, MeDSWrapper, OptimizerSettings, evaluate
from meds_plugin.data import DataSettings, synthetic_split
from tests.examples.autoencoder import Autoencoder
from tests.examples.teacher_student import TeacherStudent
from tests.examples.transformer import FeatureTransformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from meds_plugin.data import Split
    from meds_plugin.training.stages import Method


class Example(NamedTuple):
    """A detector and its settings, which are the same with and without MeDS."""

    make: Callable[[], nn.Module]
    lr: float
    steps: int  # of each stage; twice as many where there is only one


EXAMPLES = {
    "autoencoder": Example(Autoencoder, lr=4e-3, steps=700),
    "teacher_student": Example(TeacherStudent, lr=2e-3, steps=300),
    "transformer": Example(FeatureTransformer, lr=2e-3, steps=300),
}
RUNS: tuple[tuple[Method, float], ...] = (("plain", 0.0), ("plain", 0.4), ("meds", 0.4))


def data(noise: float, split: Split | None = None) -> AnomalyDataModule:
    """Return the default run's synthetic images, with ``noise`` defective ones per normal one."""
    split = synthetic_split() if split is None else split
    settings = DataSettings(noise=noise)
    return AnomalyDataModule(source=split, settings=settings, image_size=128, batch_size=8)


def fit(
    example: Example, datamodule: AnomalyDataModule, method: Method, *, steps: int | None = None
) -> MeDSWrapper:
    """Train an example from fixed initial weights, on images normalised as it expects."""
    steps = steps or example.steps
    torch.manual_seed(0)
    model = MeDSWrapper(
        example.make(),
        method=method,
        distill_steps=steps,
        finetune_steps=steps,
        optimizer=OptimizerSettings(lr=example.lr, final_lr=example.lr / 10),
    )
    datamodule.preprocess.normalization = model.normalization
    trainer = L.Trainer(
        max_steps=model.total_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule)
    return model


def metrics(model: MeDSWrapper, datamodule: AnomalyDataModule) -> dict[str, float]:
    """Return the mean metrics over the categories."""
    found: dict[str, float] = evaluate(model, datamodule)["mean"]
    return found


def main() -> None:
    """Compare the examples named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", help=f"default: {', '.join(EXAMPLES)}")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    for name in given.examples or EXAMPLES:
        for method, noise in RUNS:
            start, datamodule = time.process_time(), data(noise)
            found = metrics(fit(EXAMPLES[name], datamodule, method), datamodule)
            print(
                f"{name:16} {method:6} noise {noise:g}: I-AUROC {found['I-AUROC']:.3f}  "
                f"P-AP {found['P-AP']:.3f}  ({time.process_time() - start:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
