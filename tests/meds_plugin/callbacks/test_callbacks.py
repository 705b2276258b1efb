"""The callbacks on LightningModules that know nothing of MeDS, and the ones of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from meds_plugin import (
    DistillationCallback,
    MemoryEnsembleCallback,
    ProgressiveSelectionCallback,
)
from meds_plugin.callbacks.run_checkpoint import RunCheckpoint
from meds_plugin.callbacks.stage_bar import StageBar
from meds_plugin.memory import expected_scores
from tests.toys import BareDetector, FullDetector, ToyImages, loader, quiet_trainer, wrap


class Foreign(L.LightningModule):
    """A detector's own training, as its authors may have written it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = BareDetector()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net(images)
        return maps

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(batch)
        loss: Tensor = self(batch).mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def test_the_memory_alone_scores_a_foreign_modules_images() -> None:
    memory = MemoryEnsembleCallback()
    module = Foreign()
    quiet_trainer(3, callbacks=[memory]).fit(module, loader())
    assert memory.maps is not None
    assert memory.maps.shape == (20, 14, 14)
    worst = set(memory.image_scores().topk(4).indices.tolist())
    assert worst == set(ToyImages().anomalous)
    assert all(isinstance(batch, Tensor) for batch in module.seen)


def test_memories_are_drawn_from_each_view_and_images_selected_within_it() -> None:
    images = ToyImages()
    images.categories = ["all"] * 20  # type: ignore[attr-defined]
    images.views = images.groups  # type: ignore[attr-defined]
    model = wrap(FullDetector())
    quiet_trainer(model.total_steps).fit(model, DataLoader(images, batch_size=4))
    assert model.memory is not None
    assert model.memory.maps is not None
    with torch.no_grad():
        features = model.view.features(images.images)
    expected = expected_scores(features, 0.1, strata=images.groups)
    torch.testing.assert_close(model.memory.maps.flatten(1), expected)
    assert model.selection is not None
    assert {row["category"] for row in model.selection.history} == {"left", "right"}


def test_selection_alone_chooses_a_foreign_modules_batches() -> None:
    selection = ProgressiveSelectionCallback(total_steps=12)
    module = Foreign()
    quiet_trainer(12, callbacks=[selection]).fit(module, loader())
    assert len(module.seen) == 12
    first = [row for row in selection.history if row["step"] == 0]
    assert {row["category"] for row in first} == {"left", "right"}
    bright = [bool((batch > 2).any()) for batch in module.seen[:2]]
    assert not any(bright)  # the images with a bright square are above the median


def test_distillation_alone_gives_a_loss() -> None:
    targets = torch.rand(20, 4, 4)
    callback = DistillationCallback(10, targets)
    maps = torch.rand(2, 4, 4)
    expected = 10 * (maps - targets[[5, 3]]).square().mean()
    torch.testing.assert_close(callback.loss(maps, torch.tensor([5, 3])), expected)


def test_distillation_without_targets_says_so() -> None:
    with pytest.raises(ValueError, match="put a MemoryEnsembleCallback before it"):
        quiet_trainer(2, callbacks=[DistillationCallback(2)]).fit(Foreign(), loader())


def test_scores_are_not_to_be_had_before_a_fit() -> None:
    with pytest.raises(RuntimeError, match="once a fit has started"):
        MemoryEnsembleCallback().image_scores()


class Frames:
    """Stands in for tqdm and keeps what it was told."""

    made: list[Frames]

    def __init__(self, **settings: Any) -> None:
        self.settings, self.n, self.text = settings, settings["initial"], ""
        self.made.append(self)

    def update(self, by: int) -> None:
        self.n += by

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        self.text = text

    def close(self) -> None:
        self.settings["closed"] = True


def test_there_is_a_bar_for_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    Frames.made = []
    monkeypatch.setattr("meds_plugin.callbacks.stage_bar.tqdm", Frames)
    model = wrap(FullDetector())
    bar = StageBar(model.plan, every=5)
    trainer = quiet_trainer(model.total_steps, callbacks=[bar], enable_progress_bar=True)
    trainer.fit(model, loader())
    assert [(f.settings["desc"], f.settings["total"]) for f in Frames.made] == [
        ("distill", 12),
        ("finetune", 16),
    ]
    assert all(f.n == f.settings["total"] and f.settings["closed"] for f in Frames.made)
    assert all(f.text.startswith("loss ") for f in Frames.made)


def test_checkpoints_come_after_the_memory_regularly_and_at_stage_ends(tmp_path: Path) -> None:
    steps: list[int] = []

    class Watched(RunCheckpoint):
        def save(self, trainer: L.Trainer) -> None:
            super().save(trainer)
            steps.append(torch.load(self.path, weights_only=True)["global_step"])

    model = wrap(FullDetector())
    keeper = Watched(tmp_path / "model.ckpt", model.plan, every=5)
    quiet_trainer(model.total_steps, callbacks=[keeper]).fit(model, loader())
    assert steps == [0, 5, 10, 12, 15, 20, 25, 28]
    assert list(tmp_path.iterdir()) == [tmp_path / "model.ckpt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(self: Path, content: memoryview) -> None:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.ckpt"
    path.write_bytes(b"old")
    model = wrap(FullDetector())
    trainer = quiet_trainer(2, callbacks=[RunCheckpoint(path, model.plan, every=1)])
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space"):
        trainer.fit(model, loader())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
