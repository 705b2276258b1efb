"""Rivals in a fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meds_plugin import AnomalyDataModule, evaluate
from meds_plugin.data import synthetic_split
from meds_plugin.encoders.build import build_encoder
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.rivals import RIVALS, InReach, PatchCore, SoftPatch, make_rival
from meds_plugin.training.stages import RIVAL_METHODS
from meds_plugin.utils.errors import UserError
from meds_plugin.wrapper import MeDSWrapper
from tests.toys import ToyImages, quiet_trainer

SMALL: dict[str, dict[str, Any]] = {
    "fun_ad": {"epochs": 2, "hidden": [8, 4]},
    "inreach": {"min_length": 2, "max_std": 20.0},
}


def encoder(size: int = 16) -> nn.Module:
    return build_encoder(
        model="resnet18", image_size=size, layers=[1, 2], weights="random", pyramid={"stride": 4}
    )


def fit(method: str, **settings: Any) -> MeDSWrapper:
    images = ToyImages()
    given = {**SMALL.get(method, {}), **settings}
    model = MeDSWrapper(encoder(), method=method, rival=given)  # type: ignore[arg-type]
    loader = torch.utils.data.DataLoader(images, batch_size=3)
    quiet_trainer(model.total_steps).fit(model, loader)
    return model


@pytest.mark.parametrize("method", list(RIVALS))
def test_every_rival_scores_all_images_in_their_order(method: str) -> None:
    model = fit(method)
    assert model.total_steps == model.global_step == 0
    assert model.rival is not None
    scores = model.training_scores()
    assert scores.memory is None
    assert scores.distilled is None
    assert bool(scores.selected.all())
    assert model.rival.maps is not None
    assert model.rival.maps.shape == (20, 4, 4)
    assert bool(torch.isfinite(scores.score).all())
    assert model.rival.seconds > 0
    if method == "softpatch":
        assert set(scores.score.topk(4).indices.tolist()) == set(ToyImages().anomalous)


def test_categories_do_not_know_each_other() -> None:
    model = fit("patchcore", coreset=1.0)
    assert model.rival is not None
    assert set(model.rival._fits) == {"left", "right"}
    banks = [fit.bank for fit in model.rival._fits.values()]  # type: ignore[attr-defined]
    assert [int(bank.images.max()) for bank in banks] == [9, 9]


def test_the_names_of_the_methods_are_those_of_the_rivals() -> None:
    assert set(RIVAL_METHODS) == set(RIVALS)


def test_settings_come_by_name_or_as_they_are() -> None:
    assert make_rival("meds") is None
    assert make_rival("patchcore") == PatchCore()
    assert make_rival("patchcore", {"coreset": 0.5}) == PatchCore(coreset=0.5)
    given = SoftPatch(noise="nearest")
    assert make_rival("softpatch", given) is given
    model = MeDSWrapper(encoder(), method="inreach", rival=InReach(seeds=3))
    assert model.hparams["rival"]["seeds"] == 3


def test_an_encoder_for_other_images_says_so() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = self.layer(images)
            return maps[:, 0]

    model = MeDSWrapper(Plain(), method="patchcore")
    loader = torch.utils.data.DataLoader(ToyImages(), batch_size=3)
    with pytest.raises((UserError, ValueError), match=r"takes images \[B, 3, 224, 224\]"):
        quiet_trainer(0).fit(model, loader)


def test_test_images_are_scored_by_the_rivals_own_rule() -> None:
    split = synthetic_split(
        categories=["weave"], size=32, train_normal=6, test_normal=4, test_defective=4
    )
    data = AnomalyDataModule(source=split, image_size=32, batch_size=4)
    model = MeDSWrapper(encoder(32), method="patchcore")
    data.preprocess.normalization = model.normalization
    quiet_trainer(0).fit(model, data)
    seen: list[tuple[Tensor, Tensor]] = []
    results = evaluate(
        model,
        data,
        protocol=EvaluationProtocol(resize=16),
        on_maps=lambda places, maps: seen.append((places, maps)),
    )
    assert results["mean"]["I-AUROC"] is not None
    for places, maps in seen:
        assert maps.shape == (len(places), 16, 16)
        assert float(maps.std()) > 0
