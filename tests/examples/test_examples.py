"""The examples train as the README says, to valid scores and metrics."""

from __future__ import annotations

import pytest
import torch
from lightning import seed_everything

from meds_plugin.data import synthetic_split
from tests.examples.compare import EXAMPLES, data, fit, metrics


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
