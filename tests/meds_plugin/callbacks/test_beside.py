"""Lightning's own callbacks and limits beside ours."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loggers import CSVLogger

from meds_plugin.utils.errors import UserError
from tests.toys import FullDetector, loader, wrap

if TYPE_CHECKING:
    from meds_plugin.wrapper import MeDSWrapper

STEPS = 28


def fit(
    folder: Path, *callbacks: L.Callback, method: str = "meds", **settings: Any
) -> tuple[MeDSWrapper, L.Trainer]:
    torch.manual_seed(5)
    model = wrap(FullDetector(), method=method)
    checkpoints = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    own: dict[str, Any] = {
        "max_steps": model.total_steps,
        "accelerator": "cpu",
        "devices": 1,
        "logger": CSVLogger(folder),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": checkpoints,
    }
    trainer = L.Trainer(**{**own, **settings}, callbacks=list(callbacks))
    trainer.fit(model, loader())
    return model, trainer


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Scores of a fit with nothing beside."""
    return fit(tmp_path_factory.mktemp("alone"))[0].training_scores().score


@pytest.mark.parametrize(
    ("callback", "settings"),
    [
        (lambda folder: LearningRateMonitor("step"), {}),
        (lambda folder: ModelSummary(), {"enable_model_summary": True}),
        (lambda folder: RichProgressBar(), {"enable_progress_bar": True}),
        (lambda folder: Timer({"seconds": 1000}), {}),
        (lambda folder: EarlyStopping("train_loss", patience=1000), {}),
        (
            lambda folder: ModelCheckpoint(
                folder, monitor="train_loss", save_last=True, every_n_train_steps=5
            ),
            {},
        ),
    ],
)
def test_what_only_watches_changes_nothing(
    tmp_path: Path, scores: torch.Tensor, callback: Any, settings: dict[str, Any]
) -> None:
    model, _ = fit(tmp_path, callback(tmp_path), **settings)
    assert model.global_step == STEPS
    assert torch.equal(model.training_scores().score, scores)


def test_a_checkpoint_that_lightning_wrote_is_gone_on_with(
    tmp_path: Path, scores: torch.Tensor
) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=5)
    fit(tmp_path, saved, max_steps=15)
    torch.manual_seed(5)
    model = wrap(FullDetector())
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader(), ckpt_path=saved.last_model_path, weights_only=True)
    assert model.global_step == STEPS
    assert torch.equal(model.training_scores().score, scores)


@pytest.mark.parametrize(
    ("callbacks", "settings", "steps"),
    [
        ([], {"accumulate_grad_batches": 2}, STEPS),
        ([GradientAccumulationScheduler({0: 1, 3: 2})], {}, STEPS),
        ([EMAWeightAveraging()], {}, STEPS),
        ([], {"overfit_batches": 2}, STEPS),
        ([], {"limit_train_batches": 2}, STEPS),
        ([], {"fast_dev_run": 3}, 3),
        ([], {"max_time": {"days": 1}}, STEPS),
    ],
)
def test_what_changes_training_leaves_all_stages(
    tmp_path: Path, callbacks: list[L.Callback], settings: dict[str, Any], steps: int
) -> None:
    model, _ = fit(tmp_path, *callbacks, **settings)
    assert model.global_step == steps
    assert bool(torch.isfinite(model.training_scores().score).all())


def test_what_would_mix_the_stages_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="averages weights of distill and finetune"):
        fit(tmp_path, StochasticWeightAveraging(1e-3, swa_epoch_start=2))
    model, _ = fit(tmp_path, StochasticWeightAveraging(1e-3, swa_epoch_start=2), method="plain")
    assert model.global_step == STEPS


def test_the_learning_rate_that_is_logged_is_the_monitors(tmp_path: Path) -> None:
    _, trainer = fit(tmp_path, LearningRateMonitor("step"), log_every_n_steps=1)
    with (Path(str(trainer.log_dir)) / "metrics.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    (theirs,) = (name for name in rows[0] if name.startswith("lr-"))
    rates = {
        name: {row["step"]: float(row[name]) for row in rows if row[name]}
        for name in ("lr", theirs)
    }
    assert len(rates["lr"]) == STEPS
    assert rates["lr"] == pytest.approx(rates[theirs])
    assert rates["lr"]["0"] == 0  # the warm-up begins so
