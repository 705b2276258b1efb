from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from meds_plugin.encoding.cache.settings import CacheSettings
from meds_plugin.encoding.scoring import selection_scores
from meds_plugin.memory.settings import MemorySettings
from meds_plugin.rivals import RIVALS
from meds_plugin.selection import anchor, select_by_group
from meds_plugin.training.stages import METHODS, Method
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices
from meds_plugin.wrapper import MeDSWrapper
from tests.toys import BareDetector, FullDetector, ToyImages, loader, quiet_trainer, wrap

if TYPE_CHECKING:
    from pathlib import Path


OWN_METHODS = [method for method in METHODS if method not in RIVALS]


def fit(detector: nn.Module, **settings: Any) -> MeDSWrapper:
    torch.manual_seed(7)
    model = wrap(detector, **settings)
    quiet_trainer(model.total_steps).fit(model, loader())
    return model


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(5)
    return kind()


def weights(model: MeDSWrapper) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.detector.state_dict().items()}


@pytest.mark.parametrize("kind", [BareDetector, FullDetector])
@pytest.mark.parametrize("method", OWN_METHODS)
def test_every_method_runs_and_scores_all_images(kind: type[nn.Module], method: Method) -> None:
    model = fit(make(kind), method=method)
    scores = model.training_scores()
    assert scores.score.shape == scores.selected.shape == (20,)
    assert bool(torch.isfinite(scores.score).all())
    assert (scores.memory is None) == (method == "plain")
    assert (scores.distilled is None) == (method in ("plain", "memory"))
    assert model.global_step == model.total_steps


def test_the_stages_follow_one_another() -> None:
    detector = FullDetector()
    model = fit(detector)
    # 12 steps of distillation never ask for the detector's own loss
    assert detector.losses == [(step, 16) for step in range(16)]
    assert set(model.seconds) == {"encode", "memory", "distill", "finetune"}
    assert all(seconds > 0 for seconds in model.seconds.values())


def test_the_papers_selection_starts_under_the_median_and_leaves_the_defects_out() -> None:
    model = fit(make(FullDetector), selection={"k": 3.0, "k_start": 0.0, "memory": 0.0})
    assert model.selection is not None
    first = [row for row in model.selection.history if row["step"] == 12]
    assert [row["category"] for row in first] == ["left", "right"]
    assert all(int(row["kept"]) < 5 for row in first)
    scores = model.training_scores()
    assert scores.memory is not None
    worst = set(scores.memory.topk(4).indices.tolist())
    assert worst == set(ToyImages().anomalous)


def test_selection_weighs_the_memory_and_leaves_the_defects_out() -> None:
    model = fit(make(FullDetector), selection={"memory": 0.75, "k": 2.0, "k_start": 2.0, "hold": 0})
    scores = model.training_scores()
    assert scores.memory is not None
    assert model.stream is not None
    groups = group_indices(model.stream.images.reader.groups)
    own = selection_scores(model.stream.images, top=0.01, device=model.device)
    torch.testing.assert_close(scores.score, anchor(own, scores.memory, groups, weight=0.75))
    assert model.selection is not None
    chosen = select_by_group(scores.score, groups, step=1, total_steps=1, k=2.0)
    expected = torch.cat([each.indices for each in chosen.values()]).sort().values
    assert scores.selected.nonzero().flatten().equal(expected)
    assert not set(expected.tolist()) & set(ToyImages().anomalous)


def hold(monkeypatch: pytest.MonkeyPatch, images: list[int]) -> None:
    def chosen(memory: Tensor, _groups: object) -> Tensor:
        return torch.zeros(len(memory), dtype=torch.bool).index_fill_(0, torch.tensor(images), 1)

    if images:
        monkeypatch.setattr("meds_plugin.callbacks.progressive_selection.stand_apart", chosen)


def test_images_that_stand_apart_are_held_and_never_selected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [0, 4, 9, 11]  # two of them inconspicuous
    hold(monkeypatch, images)
    model = fit(make(FullDetector), selection={"hold": 3.0})
    assert model.stream is not None
    assert model.selection is not None
    assert model.stream.held.tolist() == images
    selected = model.training_scores().selected
    assert not selected[images].any()
    assert selected.sum() > 10
    assert sum(int(row["kept"]) for row in model.selection.history[-2:]) == int(selected.sum())
    detector = model.detector
    assert isinstance(detector, FullDetector)
    assert len(detector.losses) == 16  # every batch has images for the detector's own loss
    index = torch.tensor(images)
    low = torch.full((4,), -5.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.selection.hold_loss(low, index), low)
    assert gradient.tolist() == [-0.75] * 4
    assert model.selection.hold_loss(low + 1e4, index) == 0
    without = fit(make(FullDetector), selection={"hold": 0.0})
    assert without.stream is not None
    assert len(without.stream.held) == 0
    assert without.training_scores().selected[[0, 11]].any()


def test_distillation_learns_the_memory_scores() -> None:
    model = wrap(make(FullDetector), method="distilled", distill_steps=150)
    quiet_trainer(model.total_steps).fit(model, loader())
    assert model.memory is not None
    assert model.memory.maps is not None
    with torch.no_grad():
        before = make(FullDetector).eval()(ToyImages().images)
        after = model.detector.eval()(ToyImages().images)
    target = model.memory.maps
    assert (after - target).square().mean() < 0.5 * (before - target).square().mean()


def test_plain_trains_on_everything() -> None:
    model = fit(make(FullDetector), method="plain")
    assert model.stream is not None
    assert len(model.stream.subset) == 20
    assert bool(model.training_scores().selected.all())


def test_optimiser_and_schedule_start_anew_with_fine_tuning() -> None:
    seen: dict[int, tuple[float, int]] = {}

    class Watch(L.Callback):
        def on_before_optimizer_step(
            self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
        ) -> None:
            state: dict[str, Any] = next(iter(optimizer.state.values()), {})
            steps = int(state.get("step", 0))
            seen[trainer.global_step] = (optimizer.param_groups[0]["lr"], steps)

    model = wrap(make(FullDetector))
    quiet_trainer(model.total_steps, callbacks=[Watch()]).fit(model, loader())
    assert [seen[step][1] for step in (0, 11, 12, 13)] == [0, 11, 0, 1]
    assert seen[0][0] == seen[12][0] == 0.0
    assert seen[1][0] == pytest.approx(1e-2)


def test_random_init_fine_tunes_from_the_initial_weights() -> None:
    class Watch(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step == 12 and isinstance(pl_module, MeDSWrapper):
                found.update(weights(pl_module))

    found: dict[str, Tensor] = {}
    detector = make(FullDetector)
    initial = {key: value.clone() for key, value in detector.state_dict().items()}
    model = wrap(detector, method="random_init")
    quiet_trainer(model.total_steps, callbacks=[Watch()]).fit(model, loader())
    for key, value in initial.items():
        torch.testing.assert_close(found[key], value)
    meds = fit(make(FullDetector))
    assert model.distillation is not None
    assert meds.distillation is not None
    torch.testing.assert_close(model.distillation.scores, meds.distillation.scores)


def test_the_random_state_outside_does_not_matter() -> None:
    results = []
    for seed in (1, 2):
        model = wrap(make(BareDetector))
        torch.manual_seed(seed)
        quiet_trainer(model.total_steps).fit(model, loader())
        results.append(weights(model))
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key])


def test_the_number_of_workers_does_not_matter() -> None:
    results = []
    for workers in (0, 2):
        model = wrap(make(BareDetector), distill_steps=4, finetune_steps=4)
        quiet_trainer(model.total_steps).fit(model, loader(workers=workers))
        results.append(weights(model))
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key])


def test_the_seed_matters() -> None:
    first, second = (weights(fit(make(BareDetector), seed=seed)) for seed in (0, 1))
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


class SaveAt(L.Callback):
    """Saves a checkpoint after a step and stops there, as a kill would."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


# In distillation, at its end, just after it, in fine-tuning, at the end of a pass, at the end.
@pytest.mark.parametrize("step", [3, 12, 13, 14, 20, 27, 28])
@pytest.mark.parametrize(("method", "held"), [("meds", []), ("meds", [4, 9]), ("random_init", [])])
def test_a_resumed_fit_ends_where_an_unbroken_one_does(
    tmp_path: Path, step: int, method: Method, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(monkeypatch, held)
    whole = fit(make(FullDetector), method=method)
    stopped = wrap(make(FullDetector), method=method)
    saver = SaveAt(step, tmp_path / "c.ckpt")
    quiet_trainer(stopped.total_steps, callbacks=[saver]).fit(stopped, loader())
    resumed = wrap(make(FullDetector), method=method)
    quiet_trainer(resumed.total_steps).fit(
        resumed, loader(), ckpt_path=tmp_path / "c.ckpt", weights_only=True
    )
    assert resumed.global_step == whole.global_step
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert torch.equal(whole.training_scores().score, resumed.training_scores().score)
    assert whole.selection is not None
    assert resumed.selection is not None
    assert whole.selection.history == resumed.selection.history


def test_a_checkpoint_holds_no_frozen_weight_and_knows_the_encoder(tmp_path: Path) -> None:
    model = fit(make(FullDetector))
    path = tmp_path / "c.ckpt"
    model.trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert set(saved["state_dict"]) == {"detector.head.weight", "detector.head.bias"}
    assert saved["meds"]["stage"] == "finetune"
    torch.manual_seed(99)
    other = wrap(FullDetector())
    with pytest.raises(UserError, match="other frozen weights"):
        quiet_trainer(1).fit(other, loader(), ckpt_path=path, weights_only=True)
    with pytest.raises(UserError, match="of another model"):
        quiet_trainer(1).fit(wrap(BareDetector()), loader(), ckpt_path=path, weights_only=True)


def test_three_lines_are_enough() -> None:
    model = MeDSWrapper(BareDetector())
    trainer = quiet_trainer(4)
    trainer.fit(model, loader())
    assert model.total_steps == 900
    assert model.memory is not None
    assert model.memory.maps is not None
    assert model.memory.maps.shape == (20, 14, 14)  # the package's default encoder


def test_a_trainers_clipping_goes_before_ours() -> None:
    norms: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(
            self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
        ) -> None:
            grads = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.stack(grads).norm()))

    for value in (None, 1e-4):
        model = wrap(make(FullDetector))
        quiet_trainer(2, gradient_clip_val=value, callbacks=[Watch()]).fit(model, loader())
    assert max(norms[:2]) <= 0.1 + 1e-6
    assert max(norms[2:]) <= 1e-4 + 1e-8


@pytest.mark.parametrize("limits", [{"max_steps": 60}, {"max_steps": -1, "max_epochs": 500}])
def test_ends_with_its_stages_however_long_the_trainer_would_go_on(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    model = wrap(make(FullDetector))
    trainer = quiet_trainer(**limits)
    trainer.fit(model, loader())
    assert model.global_step == model.total_steps
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    again = wrap(make(FullDetector))
    quiet_trainer(**limits).fit(again, loader(), ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    assert again.global_step == again.total_steps


@pytest.mark.parametrize(
    ("limits", "steps"), [({"max_steps": 3}, 3), ({"max_steps": -1, "max_epochs": 1}, 5)]
)
def test_warns_where_the_trainer_ends_it_early(limits: dict[str, int], steps: int) -> None:
    model = wrap(make(FullDetector))
    with pytest.warns(UserWarning, match=rf"ended after {steps} of 28 steps, before.*max_steps="):
        quiet_trainer(**limits).fit(model, loader())


def test_a_limit_of_batches_continues_the_pass_instead_of_a_new_one() -> None:
    whole = weights(fit(make(FullDetector)))
    model = wrap(make(FullDetector))
    quiet_trainer(model.total_steps, limit_train_batches=2).fit(model, loader())
    for key, value in whole.items():
        assert torch.equal(value, weights(model)[key])


def test_names_a_detector_whose_maps_have_a_wrong_shape() -> None:
    class Wrong(BareDetector):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).flatten(1)

    with pytest.raises(ValueError, match=r"Wrong\.forward must return anomaly maps"):
        fit(Wrong())


def test_a_second_fit_forgets_the_first() -> None:
    model = fit(make(FullDetector))
    first = model.training_scores().memory
    quiet_trainer(model.total_steps).fit(model, loader(count=13))
    again = model.training_scores().memory
    assert first is not None
    assert again is not None
    assert len(again) == 13
    assert model.selection is not None
    assert [row["step"] for row in model.selection.history[:2]] == [12, 12]


def test_asking_for_scores_twice_changes_nothing() -> None:
    model = fit(make(FullDetector))
    assert model.selection is not None
    first = model.training_scores()
    rows = list(model.selection.history)
    second = model.training_scores()
    assert torch.equal(first.selected, second.selected)
    assert rows == model.selection.history


def test_stopped_in_distillation_nothing_is_deselected() -> None:
    model = wrap(make(FullDetector))
    quiet_trainer(5).fit(model, loader())
    assert bool(model.training_scores().selected.all())
    assert model.selection is not None
    assert model.selection.history == []


def test_what_is_frozen_stays_in_evaluation_mode(tmp_path: Path) -> None:
    class Normed(FullDetector):
        def __init__(self) -> None:
            super().__init__()
            norm = nn.BatchNorm2d(8)
            self.encoder = nn.Sequential(self.encoder, norm)  # type: ignore[assignment]
            self.encoder.requires_grad_(requires_grad=False)

    torch.manual_seed(5)
    model = wrap(Normed())
    trainer = quiet_trainer(model.total_steps)
    trainer.fit(model, loader())
    mean = model.detector.state_dict()["encoder.1.running_mean"]
    assert torch.equal(mean, torch.zeros(8))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    torch.manual_seed(5)
    again = wrap(Normed())
    quiet_trainer(again.total_steps).fit(
        again, loader(), ckpt_path=tmp_path / "c.ckpt", weights_only=True
    )
    assert again.global_step == again.total_steps


def test_a_given_memory_encoder_is_part_of_the_model_but_not_of_checkpoints(
    tmp_path: Path,
) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 4, stride=4).requires_grad_(requires_grad=False)
            self.drop = nn.Dropout(0.5)

        def forward(self, images: Tensor) -> Tensor:
            assert not self.drop.training
            features: Tensor = self.drop(self.conv(images))
            return features

    model = fit(make(BareDetector), features=Patches())
    assert model.memory is not None
    assert model.memory.maps is not None
    assert model.memory.maps.shape == (20, 4, 4)
    assert any(isinstance(part, Patches) for part in model.modules())
    model.trainer.save_checkpoint(tmp_path / "c.ckpt")
    names = torch.load(tmp_path / "c.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("detector.") for name in names)


def test_selection_passes_count_as_time_of_their_stage() -> None:
    class Slow(FullDetector):
        def anomaly_map(self, encoded: Tensor) -> Tensor:
            if not self.training:
                time.sleep(0.02)
            return super().anomaly_map(encoded)

    model = wrap(Slow(), method="meds")
    quiet_trainer(model.total_steps).fit(model, loader())
    assert model.selection is not None
    passes = len({row["step"] for row in model.selection.history})
    assert passes >= 2
    # Every pass scores 20 images in 5 batches; the first one's scores are the distilled model's.
    assert model.seconds["finetune"] > 5 * 0.02 * (passes - 1)


class SortedDetector(FullDetector):
    """Is told the category of every image, and tells what it was told with which image."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, set[tuple[float, int]]] = {"map": set(), "loss": set()}

    def tell(self, where: str, encoded: Tensor, category: Tensor) -> None:
        marks = encoded.flatten(1).double().sum(1).tolist()
        self.told[where] |= set(zip(marks, category.tolist(), strict=True))

    def anomaly_map(self, encoded: Tensor, *, category: Tensor | None = None) -> Tensor:
        assert category is not None
        self.tell("map", encoded, category)
        return super().anomaly_map(encoded)

    def loss(
        self, encoded: Tensor, *, step: int, total_steps: int, category: Tensor | None = None
    ) -> Tensor:
        assert category is not None
        self.tell("loss", encoded, category)
        return super().anomaly_map(encoded).mean()


@pytest.mark.parametrize("gb", [0.0, 1.0])
def test_training_and_scoring_know_the_category_of_each_image(gb: float) -> None:
    model = fit(make(SortedDetector), cache=CacheSettings(gb=gb))
    model.training_scores()
    images = ToyImages()
    encoded = model.view.encode(images.images)
    marks = encoded.flatten(1).double().sum(1).tolist()
    expected = {mark: int(name == "right") for mark, name in zip(marks, images.groups, strict=True)}
    detector = model.detector
    assert isinstance(detector, SortedDetector)
    assert len({mark for mark, _ in detector.told["map"]}) == 20
    assert detector.told["loss"]
    for where in ("map", "loss"):
        for mark, category in detector.told[where]:
            nearest = min(expected, key=lambda known: abs(known - mark))
            assert nearest == pytest.approx(mark, abs=1e-3)
            assert expected[nearest] == category
    images_of_neither = torch.zeros(2, 3, 16, 16)
    detector.told["map"].clear()
    model(images_of_neither)
    assert {category for _, category in detector.told["map"]} == {-1}


def test_the_auxiliary_loss_is_added_in_distillation_only() -> None:
    class Pulled(FullDetector):
        calls = 0

        def auxiliary_loss(self) -> Tensor:
            type(self).calls += 1
            return 1e3 * (self.get_parameter("head.bias") - 5).square().mean()

    detector = make(Pulled)
    model = wrap(detector, method="distilled", distill_steps=100)
    start = Pulled.calls  # of the check
    quiet_trainer(model.total_steps).fit(model, loader())
    assert Pulled.calls - start == 100
    assert isinstance(detector, Pulled)
    pulled, plain = (net.get_parameter("head.bias") for net in (detector, make(FullDetector)))
    assert float((pulled - plain).detach().mean()) > 0.2
    other = wrap(make(Pulled), method="plain")
    start = Pulled.calls
    quiet_trainer(other.total_steps).fit(other, loader())
    assert Pulled.calls == start


def test_a_detectors_image_score_is_what_images_are_selected_by() -> None:
    class Scored(FullDetector):
        def image_score(self, maps: Tensor) -> Tensor:
            return maps.mean((1, 2))

    model = fit(make(Scored), selection={"memory": 0.0})
    scores = model.training_scores()
    with torch.no_grad():
        maps = model.eval()(ToyImages().images)
    torch.testing.assert_close(scores.score, maps.mean((1, 2)))
    assert scores.distilled is not None
    assert model.selection is not None
    assert model.selection.initial_scores is scores.distilled


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"distill_loss": "huber"}, "distillation.loss must be l2 or l1"),
        ({"selection": {"k": -1.0}}, "selection.k must be a number of at least 0"),
        ({"selection": {"top": 5}}, "selection.top must be a number of at least 0 and at most 1"),
    ],
)
def test_names_the_wrong_setting(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=re.escape(key)):
        wrap(BareDetector(), **settings)


def test_a_checkpoint_knows_the_plan_and_all_settings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "method": "memory_selected",
        "memory": MemorySettings(ratio=0.3, unit="patch"),
        "distill_loss": "l1",
        "selection": {"k": 2.0},
        "seed": 7,
    }
    model = wrap(make(FullDetector), **settings)
    trainer = quiet_trainer(model.total_steps)
    trainer.fit(model, loader())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    again = MeDSWrapper.load_from_checkpoint(tmp_path / "c.ckpt", detector=make(FullDetector))
    assert again.plan == model.plan
    assert dict(again.hparams) == dict(model.hparams)
    assert again.optimizer_settings == model.optimizer_settings
    assert again.memory is not None
    assert again.memory.settings == settings["memory"]
    for key, value in weights(model).items():
        assert torch.equal(value, weights(again)[key])
    longer = MeDSWrapper.load_from_checkpoint(
        tmp_path / "c.ckpt", detector=make(FullDetector), finetune_steps=99
    )
    assert longer.total_steps == model.plan.stages[0].end + 99


@pytest.mark.parametrize("method", OWN_METHODS)
def test_one_loss_is_there_in_all_stages_for_lightnings_callbacks(
    tmp_path: Path, method: Method
) -> None:
    class Watch(L.Callback):
        def __init__(self) -> None:
            self.steps: list[float] = []
            self.passes: list[float] = []

        def on_train_batch_end(self, trainer: L.Trainer, *others: Any) -> None:
            del others
            self.steps.append(float(trainer.callback_metrics["train_loss"]))

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            del pl_module
            self.passes.append(float(trainer.callback_metrics["train_loss"]))

    watch = Watch()
    best = ModelCheckpoint(tmp_path, monitor="train_loss", every_n_train_steps=5, save_top_k=2)
    patient = EarlyStopping("train_loss", patience=100, check_on_train_epoch_end=True)
    model = wrap(make(FullDetector), method=method)
    trainer = quiet_trainer(
        model.total_steps, callbacks=[watch, best, patient], enable_checkpointing=True
    )
    trainer.fit(model, loader())
    assert len(watch.steps) == model.total_steps
    if not model.total_steps:
        return
    first = len(watch.steps) if len(watch.passes) == 1 else 5
    assert watch.passes[0] == pytest.approx(sum(watch.steps[:first]) / first)
    assert len(best.best_k_models) == 2
    assert patient.best_score < float("inf")
    MeDSWrapper.load_from_checkpoint(best.best_model_path, detector=make(FullDetector))


def test_early_stopping_ends_the_training() -> None:
    model = wrap(make(FullDetector))
    stop = EarlyStopping("train_loss", stopping_threshold=1e9, check_on_train_epoch_end=True)
    with pytest.warns(UserWarning, match="training ended after 5 of 28 steps"):
        quiet_trainer(model.total_steps, callbacks=[stop]).fit(model, loader())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"precision": "64-true"}, "trainer.precision=64-true: scores need float32 weights"),
        ({"precision": "bf16-true"}, "take 32-true, bf16-mixed or 16-mixed"),
        ({"limit_train_batches": 0.5}, "trainer.limit_train_batches=0.5: .* whole number"),
        ({"overfit_batches": 0.5}, "trainer.overfit_batches=0.5: .* whole number"),
        ({"val_check_interval": 0.5}, "trainer.val_check_interval=0.5: .* whole number"),
    ],
)
def test_a_trainer_that_does_not_fit_is_named(settings: dict[str, Any], line: str) -> None:
    model = wrap(make(FullDetector))
    with pytest.raises(UserError, match=line):
        quiet_trainer(model.total_steps, **settings).fit(model, loader())


class OddImages(ToyImages):
    """Images of which the last have another shape or type."""

    def __init__(self, usual: Tensor, odd: Tensor, count: int) -> None:
        super().__init__()
        self.usual, self.odd, self.first = usual, odd, len(self) - count

    def __getitem__(self, index: int) -> Tensor:
        return self.usual if index < self.first else self.odd


WIDE, SQUARE = torch.zeros(3, 16, 24), torch.zeros(3, 16, 16)
SIZES = r"images differ in size \(\[3, 16, 16\] and \[3, 16, 24\]\): resize them"


@pytest.mark.parametrize("kind", [BareDetector, FullDetector])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("odd", "count", "line"),
    [
        (WIDE, 1, SIZES),
        (WIDE, 4, SIZES),  # whole batches
        (torch.zeros(1, 16, 16), 20, r"must be \[B, 3, H, W\], got \[4, 1, 16, 16\]: .*expand"),
        (torch.zeros(16, 16), 20, r"must be \[B, 3, H, W\], got \[4, 16, 16\]"),
    ],
)
def test_images_that_do_not_fit_are_named(
    kind: type[nn.Module], workers: int, odd: Tensor, count: int, line: str
) -> None:
    model = wrap(make(kind))
    images = DataLoader(OddImages(SQUARE, odd, count), batch_size=4, num_workers=workers)
    with pytest.raises(UserError, match=line) as error:
        quiet_trainer(model.total_steps).fit(model, images)
    assert "\n" not in str(error.value)


def test_images_of_any_float_type_train_the_same() -> None:
    class Double(ToyImages):
        def __getitem__(self, index: int) -> Tensor:
            return super().__getitem__(index).double()

    found = []
    for images in (ToyImages(), Double()):
        torch.manual_seed(7)
        model = wrap(make(BareDetector))
        quiet_trainer(model.total_steps).fit(model, DataLoader(images, batch_size=4))
        found.append(weights(model))
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
