"""The examples train as the README says, to valid scores and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from lightning import seed_everything

from meds_plugin.data import synthetic_split
from tests.examples import cli
from tests.examples.compare import EXAMPLES, data, fit, metrics

if TYPE_CHECKING:
    from pathlib import Path


def test_lightnings_command_line_trains_all_stages(tmp_path: Path) -> None:
    pytest.importorskip("jsonargparse")
    job = cli.main(
        [
            "fit",
            "--data.categories=[weave]",
            "--data.train_normal=6",
            "--model.distill_steps=3",
            "--model.finetune_steps=4",
            "--trainer.accelerator=cpu",
            "--trainer.logger=false",
            "--trainer.enable_checkpointing=false",
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert job.trainer.max_steps == job.model.global_step == 7
    assert job.model.training_scores().score.shape == (6,)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_and_is_evaluated(name: str) -> None:
    seed_everything(0, verbose=False)
    split = synthetic_split(
        categories=["weave", "gear"], train_normal=6, test_normal=3, test_defective=5
    )
    datamodule = data(0.4, split)
    model = fit(EXAMPLES[name], datamodule, "meds", steps=4)
    scores = model.training_scores()
    assert scores.score.shape == (16,)
    assert bool(torch.isfinite(scores.score).all())
    assert 0 < int(scores.selected.sum()) < 16
    assert model.global_step == 8
    assert all(0 <= value <= 1 for value in metrics(model, datamodule).values())
