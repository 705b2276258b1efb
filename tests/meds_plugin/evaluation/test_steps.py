"""Lightning's test, validation and prediction loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from meds_plugin import AnomalyDataModule, MeDSWrapper, evaluate
from meds_plugin.data import synthetic_split
from meds_plugin.evaluation import evaluated_maps
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.evaluation.scoring import Scorer
from meds_plugin.utils.errors import UserError
from tests.ddp_ranks import Mirror
from tests.toys import quiet_trainer, wrap

PROTOCOL = EvaluationProtocol(resize=32)


def make_data(**settings: Any) -> AnomalyDataModule:
    split = synthetic_split(
        categories=["weave", "gear"], size=32, train_normal=6, test_normal=4, test_defective=5
    )
    return AnomalyDataModule(source=split, image_size=32, batch_size=4, **settings)


def fit(data: AnomalyDataModule, **settings: Any) -> tuple[MeDSWrapper, Any]:
    torch.manual_seed(0)
    model = wrap(Mirror(), distill_steps=4, finetune_steps=4, method="meds")
    model.protocol = PROTOCOL
    trainer = quiet_trainer(model.total_steps, **settings)
    trainer.fit(model, data)
    return model, trainer


@pytest.fixture(scope="module")
def fitted() -> tuple[MeDSWrapper, Any, AnomalyDataModule]:
    data = make_data()
    return *fit(data), data


@pytest.mark.parametrize("maps_fit", [True, False])
def test_a_test_logs_what_the_evaluation_finds(
    fitted: Any, monkeypatch: pytest.MonkeyPatch, *, maps_fit: bool
) -> None:
    model, trainer, data = fitted
    expected = evaluate(model, data, protocol=PROTOCOL)
    if not maps_fit:
        monkeypatch.setattr(evaluated_maps, "_KEPT", 5 * 32 * 32)
        monkeypatch.setattr(evaluated_maps, "PART", 4 * 32 * 32)
    (found,) = trainer.test(model, data, verbose=False)
    assert {name: found[name] for name in expected["mean"]} == pytest.approx(expected["mean"])
    for category, values in expected["categories"].items():
        own = {name: found[f"{category}/{name}"] for name in values}
        assert own == pytest.approx(values)
    (validated,) = trainer.validate(model, data, verbose=False)
    assert validated == pytest.approx({f"val/{name}": value for name, value in found.items()})


def test_a_prediction_has_the_maps_and_scores_of_the_evaluation(fitted: Any) -> None:
    model, trainer, data = fitted
    batches = trainer.predict(model, data)
    assert [len(batch["scores"]) for batch in batches] == [4, 4, 4, 4, 2]
    scorer = Scorer(model.detector, (32, 32), PROTOCOL)
    images = torch.stack([data.test[place]["image"] for place in range(len(data.test))])
    maps, scores = scorer(images)
    found = {key: torch.cat([batch[key] for batch in batches]) for key in ("maps", "scores")}
    torch.testing.assert_close(found["maps"], maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["scores"], scores, rtol=1e-4, atol=1e-5)


class Listed(Dataset[Any]):
    """Somebody's own data set."""

    def __init__(self, kind: str, data: AnomalyDataModule) -> None:
        self.kind = kind
        self.images = data.test

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index]["image"], int(self.images.labels[index])
        mask = self.images.mask(index)
        assert mask is not None
        if self.kind == "dictionary":
            return {"image": image, "label": label, "mask": mask}
        if self.kind == "channel":
            return image, torch.tensor([label]), mask[None]
        return (image, label, mask) if self.kind == "tuple" else (image, label)


@pytest.mark.parametrize("kind", ["tuple", "dictionary", "channel", "no masks"])
def test_a_plain_loader_is_tested_as_one_category(fitted: Any, kind: str) -> None:
    model, trainer, data = fitted
    loader: DataLoader[Any] = DataLoader(Listed(kind, data), batch_size=5)
    (found,) = trainer.test(model, loader, verbose=False)
    if kind == "no masks":
        assert set(found) == {"I-AUROC", "I-AP", "I-F1max"}
        return
    assert set(found) == set(evaluate(model, data, protocol=PROTOCOL)["mean"])
    maps, scores = (
        torch.cat([batch[key] for batch in trainer.predict(model, loader)])
        for key in ("maps", "scores")
    )
    assert len(maps) == 18
    pairs = scores[data.test.labels][:, None] > scores[~data.test.labels]
    assert found["I-AUROC"] == pytest.approx(float(pairs.float().mean()))


def test_a_loader_without_labels_is_refused(fitted: Any) -> None:
    model, trainer, data = fitted

    class Images(Dataset[Tensor]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Tensor:
            image: Tensor = data.test[index]["image"]
            return image

    with pytest.raises(UserError, match="a test batch needs labels"):
        trainer.test(model, DataLoader(Images(), batch_size=2), verbose=False)
    assert trainer.predict(model, DataLoader(Images(), batch_size=2))[1]["scores"].shape == (2,)


def test_validating_while_training_changes_nothing(fitted: Any) -> None:
    model, _, _ = fitted
    every = {"val_check_interval": 3, "check_val_every_n_epoch": None}
    validated, trainer = fit(make_data(validate=True), **every)
    assert torch.equal(validated.training_scores().score, model.training_scores().score)
    for name, value in validated.detector.state_dict().items():
        assert torch.equal(value, model.detector.state_dict()[name]), name
    assert 0 <= float(trainer.callback_metrics["val/P-AP"]) <= 1


def test_categories_come_from_a_checkpoint(fitted: Any, tmp_path: Any) -> None:
    model, trainer, data = fitted
    assert model.categories == ["gear", "weave"]
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    torch.manual_seed(0)
    again = MeDSWrapper.load_from_checkpoint(tmp_path / "m.ckpt", detector=Mirror())
    again.protocol = PROTOCOL
    assert again.categories == ["gear", "weave"]
    (expected,) = trainer.test(model, data, verbose=False)
    (found,) = quiet_trainer(1).test(again, data, verbose=False)
    assert found == pytest.approx(expected)


def test_what_trains_no_detector_has_no_steps() -> None:
    data = make_data()
    model = wrap(Mirror(), method="memory")
    trainer = quiet_trainer(0)
    trainer.fit(model, data)
    with pytest.raises(UserError, match="trains no detector"):
        trainer.test(model, data, verbose=False)
