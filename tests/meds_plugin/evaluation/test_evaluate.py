from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from meds_plugin import AnomalyDataModule, evaluate
from meds_plugin.data import Split, synthetic_split
from meds_plugin.evaluation import evaluated_maps as module
from meds_plugin.evaluation.protocol import EvaluationProtocol, evaluation_maps
from meds_plugin.metrics import auroc, image_score
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from meds_plugin.wrapper import MeDSWrapper

PROTOCOL = EvaluationProtocol(resize=32)


class Darkness(nn.Module):
    """Finds dark places; hardly learns anything."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * (-images.mean(1)).exp()


@pytest.fixture(scope="module")
def data() -> AnomalyDataModule:
    split = synthetic_split(
        categories=["weave", "wood"], size=32, train_normal=6, test_normal=5, test_defective=8
    )
    return AnomalyDataModule(source=split, image_size=32, batch_size=4)


def fitted(
    data: AnomalyDataModule, method: str = "plain", detector: nn.Module | None = None
) -> MeDSWrapper:
    model = wrap(detector or Darkness(), method=method, distill_steps=1, finetune_steps=1)
    quiet_trainer(model.total_steps).fit(model, data)
    return model


def test_metrics_are_those_of_each_categorys_own_images(data: AnomalyDataModule) -> None:
    model = fitted(data)
    results = evaluate(model, data, protocol=PROTOCOL)
    assert set(results["categories"]) == {"weave", "wood"}
    for name, values in results["categories"].items():
        members = [i for i, group in enumerate(data.test.groups) if group == name]
        images = torch.stack([data.test[i]["image"] for i in members])
        with torch.no_grad():
            maps = evaluation_maps(model(images), (32, 32), PROTOCOL)
        expected = auroc(image_score(maps), data.test.labels[members])
        assert values["I-AUROC"] == pytest.approx(expected)
    assert results["skipped"] == {}


def test_the_memory_scores_test_images_by_their_own_category(data: AnomalyDataModule) -> None:
    results = evaluate(fitted(data, "memory"), data, protocol=PROTOCOL)
    assert all(0 <= value <= 1 for value in results["mean"].values())


def test_an_image_score_of_the_detectors_own_gets_its_raw_maps(data: AnomalyDataModule) -> None:
    class Scored(Darkness):
        image_size = 32

        def image_score(self, maps: Tensor) -> Tensor:
            assert maps.shape[1:] == (32, 32)
            return maps.mean((1, 2))

    plain, own = fitted(data), fitted(data, detector=Scored())
    with torch.no_grad():
        scores = [float(own(data.test[i]["image"][None]).mean()) for i in range(len(data.test))]
    results, usual = (evaluate(model, data, protocol=PROTOCOL) for model in (own, plain))
    for name, values in results["categories"].items():
        members = [i for i, group in enumerate(data.test.groups) if group == name]
        expected = auroc(torch.tensor(scores)[members], data.test.labels[members])
        assert values["I-AUROC"] == pytest.approx(expected)
        assert values["P-AP"] == usual["categories"][name]["P-AP"]
    memory = fitted(data, "memory", detector=Scored())  # its maps are not the detector's
    evaluate(memory, data, protocol=PROTOCOL)


def test_the_category_is_its_place_among_the_trained_ones() -> None:
    told: set[int] = set()

    class Sorted(Darkness):
        def forward(self, images: Tensor, category: Tensor | None = None) -> Tensor:
            assert category is not None
            if not self.training:
                told.update(category.tolist())
            return super().forward(images)

    split = synthetic_split(
        categories=["gear", "weave", "wood"],
        size=32,
        train_normal=4,
        test_normal=2,
        test_defective=2,
    )
    train = [sample for sample in split.train if sample.category != "weave"]
    data = AnomalyDataModule(source=Split(train, split.test), image_size=32, batch_size=4)
    model = fitted(data, detector=Sorted())
    told.clear()
    evaluate(model, data, protocol=PROTOCOL)
    assert told == {0, 1, -1}


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (4, "there are no masks"),
        (2, "2 of 4 defective images have no mask, the first wood/test/"),
        (1, "1 of 4 defective images has no mask, the first wood/test/"),
    ],
)
def test_without_masks_pixel_metrics_are_skipped_with_a_reason(lost: int, reason: str) -> None:
    split = synthetic_split(
        categories=["wood"], size=32, train_normal=4, test_normal=3, test_defective=4
    )
    bare = [
        sample.__class__(sample.path, sample.category, sample.defect, sample.image)
        for sample in split.test
        if sample.defect
    ][:lost]
    names = {sample.path for sample in bare}
    bare += [sample for sample in split.test if sample.path not in names]
    data = AnomalyDataModule(source=Split(split.train, bare), image_size=32, batch_size=4)
    results = evaluate(fitted(data), data, protocol=PROTOCOL)
    assert results["mean"]["P-AUROC"] is None
    assert results["mean"]["I-AUROC"] is not None
    assert results["skipped"]["wood"]["P-AUPRO"].startswith(reason)


def test_maps_that_do_not_fit_into_memory_are_made_again(
    data: AnomalyDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, protocol = fitted(data), EvaluationProtocol(resize=32, aupimo=True)
    shown: list[Tensor] = []
    expected = evaluate(model, data, protocol=protocol)
    monkeypatch.setattr(module, "_KEPT", 5 * 32 * 32)
    monkeypatch.setattr(module, "PART", 4 * 32 * 32)
    results = evaluate(
        model, data, protocol=protocol, on_maps=lambda places, maps: shown.extend((places, maps))
    )
    assert results["skipped"] == expected["skipped"]
    for name, values in expected["categories"].items():
        assert results["categories"][name] == pytest.approx(values, rel=1e-12)
    monkeypatch.undo()
    assert [len(each) for each in shown] == [7, 7, 7, 7]  # every third of 4 + 4 + 4 + 1
    full: list[Tensor] = []
    evaluate(
        model, data, protocol=protocol, on_maps=lambda places, maps: full.extend((places, maps))
    )
    for places, maps, every, whole in zip(
        shown[::2], shown[1::2], full[::2], full[1::2], strict=True
    ):
        rows = [every.tolist().index(place) for place in places.tolist()]
        assert torch.equal(maps, whole[rows])
