from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from meds_plugin import AnomalyDataModule, evaluate
from meds_plugin.data import Split, synthetic_split
from meds_plugin.evaluation import EvaluationProtocol, evaluation_maps
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


def fitted(data: AnomalyDataModule, method: str = "plain") -> MeDSWrapper:
    model = wrap(Darkness(), method=method, distill_steps=1, finetune_steps=1)
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


def test_without_masks_pixel_metrics_are_skipped_with_a_reason() -> None:
    split = synthetic_split(
        categories=["wood"], size=32, train_normal=4, test_normal=3, test_defective=4
    )
    bare = [
        sample.__class__(sample.path, sample.category, sample.defect, sample.image)
        for sample in split.test
    ]
    data = AnomalyDataModule(source=Split(split.train, bare), image_size=32, batch_size=4)
    results = evaluate(fitted(data), data, protocol=PROTOCOL)
    assert results["mean"]["P-AUROC"] is None
    assert results["mean"]["I-AUROC"] is not None
    assert results["skipped"]["wood"]["P-AUPRO"] == "there are no masks"
