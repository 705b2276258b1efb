"""Dinomaly: parity with the reference, its structure and its hard mining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.dinomaly import Dinomaly, hard_mining_factors
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.utils.errors import UserError
from tests.backbones.reference import Reference, tensors_of
from tests.backbones.small import small, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]


@pytest.fixture
def reference(golden: Golden) -> Reference:
    weights = tensors_of(golden("dinomaly_tiny_weights"))
    return Reference(golden("dinomaly_tiny"), weights, width=48, kind=Dinomaly)


# --- parity with the reference ---------------------------------------------------------------


def test_maps_and_features_are_the_references(reference: Reference) -> None:
    model = reference.model()
    reference.check_maps(model)
    features = reference["memory_feature"]
    torch.testing.assert_close(model.features(reference["input"]), features, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.27, 0.5, 0.9])
def test_the_loss_and_its_gradients_are_the_references(reference: Reference, share: float) -> None:
    model = reference.model(dropout=0.0, hard_mining=share)
    encoded = model.encode(reference["input"])
    loss = model.loss(encoded, step=1000, total_steps=10_000)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference[f"hm{share}.loss"]), abs=1e-5)
    reference.check_gradients(model, f"hm{share}")


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_distilling_into_the_map_has_the_references_gradients(
    reference: Reference, kind: str
) -> None:
    reference.check_distillation(reference.model(dropout=0.0), kind)


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_six_optimiser_steps_go_as_in_the_reference(reference: Reference, stage: str) -> None:
    model = reference.model(dropout=0.0, hard_mining_steps=4)
    encoded = model.encode(reference["input"])
    reference.check_six_steps(model, encoded, stage, OptimizerSettings(warmup=3))


# --- structure -------------------------------------------------------------------------------


def test_prefix_tokens_are_rebuilt_too() -> None:
    model = small(Dinomaly, image_size=(28, 70), layers=(1, 2)).eval()
    widen(model)
    images = torch.randn(2, 3, 28, 70)
    encoded = model.encode(images)
    tokens = model.encoder.tokens(images)
    assert torch.equal(encoded, torch.cat(tokens, dim=2))
    first = model.decoder[0](model.bottleneck[0](torch.stack(tokens).mean(0)))
    second = model.decoder[1](first)
    torch.testing.assert_close(model.rebuild(encoded), [second, first])
    distances = [
        1 - F.cosine_similarity(target[:, 5:], rebuilt[:, 5:], dim=-1)
        for target, rebuilt in zip(tokens, [second, first], strict=True)
    ]
    expected = torch.stack(distances).mean(0).view(2, 2, 5)
    torch.testing.assert_close(model.anomaly_map(encoded), expected)


@pytest.mark.parametrize(
    ("arguments", "told"), [({"dropout": 1.5}, "dropout"), ({"hard_mining": -0.1}, "hard_mining")]
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}"):
        small(Dinomaly, **arguments)


# --- hard mining -----------------------------------------------------------------------------


def test_the_hardest_locations_keep_their_gradient() -> None:
    distances = torch.tensor(
        [[[0.1, 0.9, 0.5], [7.0, 7.0, 7.0]], [[0.2, 0.5, 0.3], [1.0, 2.0, 3.0]]]
    )
    factors = hard_mining_factors(distances, 0.5, 0.1)
    expected = torch.tensor([[[0.1, 1, 1], [1, 1, 1]], [[0.1, 1, 0.1], [0.1, 0.1, 0.1]]])
    torch.testing.assert_close(factors, expected)
    assert (hard_mining_factors(distances, 0.0, 0.1) == 1).all()
    most = hard_mining_factors(distances, 1.0, 0.1)  # the reference would fail here
    assert (most[:, 0] == 1).sum() == 1


def test_the_share_of_easy_locations_rises_over_the_first_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = []

    def record(distances: Tensor, share: float, factor: float) -> Tensor:
        shares.append((share, factor))
        return torch.ones_like(distances)

    monkeypatch.setattr("backbones.dinomaly.hard_mining_factors", record)
    model = small(Dinomaly, hard_mining=0.8, hard_mining_steps=10, hard_mining_factor=0.3)
    encoded = model.encode(torch.randn(1, 3, 56, 56))
    for step in (0, 5, 10, 999):
        model.loss(encoded, step=step, total_steps=20)
    assert shares == [(0.0, 0.3), (0.4, 0.3), (0.8, 0.3), (0.8, 0.3)]


def test_dropout_acts_in_training_only() -> None:
    model = small(Dinomaly, dropout=0.2)
    encoded = model.encode(torch.randn(4, 3, 56, 56))
    assert not torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
    model.eval()
    assert torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
