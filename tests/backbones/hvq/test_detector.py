"""HVQ: its structure, and what the plugin asks of a detector."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from meds_plugin.detectors.outputs import check_finite, check_maps
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.build import build_encoder
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW
from meds_plugin.utils.errors import UserError
from tests.backbones.hvq.small import FakeEncoder, encoded_images, make
from tests.toys import loader, quiet_trainer, wrap

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.wrapper import MeDSWrapper


# --- structure -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "additive", "given", "expected"),
    [
        (1, True, None, (0,)),
        (3, True, None, (0, 1, 2)),
        (4, True, None, (0, 1, 2, 3)),
        (8, True, None, (1, 3, 5, 7)),
        (6, True, None, (0, 2, 3, 5)),
        (1, False, None, (0,)),
        (5, False, None, (0, 1, 2, 3, 4)),  # no stage of a pyramid repeats another
        (4, True, (3, 1), (3, 1)),
        (5, False, (3, 1), (3, 1)),
    ],
)
def test_targets_are_some_layers_channels_one_after_another(
    layers: int, additive: bool, given: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    encoder = FakeEncoder(channels=tuple(range(2, 2 + layers)), additive=additive)
    model = make(encoder=encoder, target_layers=given)
    assert model.target_layers == expected
    images = torch.randn(2, 3, 32, 48)
    maps = encoder.layer_maps(images)
    assert torch.equal(model.encode(images), torch.cat([maps[i] for i in expected], dim=1))


@pytest.mark.parametrize(
    ("model", "size", "layers"),
    [
        ("tf_efficientnet_lite0", 64, [1, 2, 3]),
        ("vit_tiny_patch16_224", 64, [2]),
        ("resnet10t", 64, [0, 1, 2]),
    ],
)
def test_it_runs_on_encoders_of_both_kinds(model: str, size: int, layers: list[int]) -> None:
    encoder = build_encoder(model=model, image_size=size, layers=layers, weights="random")
    detector = make(encoder=encoder)
    images = torch.randn(2, 3, size, size)
    for mode in (True, False):
        maps = detector.train(mode)(images).detach()
        check_maps(maps, batch=2, name="HVQ")
        check_finite(maps, name="HVQ")
        assert tuple(maps.shape[1:]) == encoder.grid
        assert float(maps.min()) >= 0.0
        assert float(maps.max()) <= 2.0
    encoded, features = detector.encode_and_features(images)
    assert torch.equal(encoded, detector.encode(images))
    assert torch.equal(features, detector.features(images))
    targets, reconstructed = detector.reconstruct(images)
    expected = 1.0 - F.cosine_similarity(targets[0], reconstructed[0], dim=1)
    torch.testing.assert_close(detector(images), expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"target_layers": [2]}, r"target_layers=\[2\] .* 0 to 1"),
        ({"target_layers": []}, "target_layers"),
        ({"target_layers": [0, 0]}, "target_layers"),
        ({"embed_dim": 10}, "embed_dim=10 .*heads=4"),
        ({"embed_dim": 3, "heads": 1}, "embed_dim=3 must be even"),
        ({"depth": 0}, "depth"),
        ({"codes": 0}, "codes"),
        ({"codes": 12.5}, "codes must be a whole number of at least 1, got 12.5"),
        ({"decay": "slow"}, "decay must be at least 0 and below 1, got 'slow'"),
        ({"classes": 0}, "classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
        ({"routing": "oracle"}, "routing must be nearest or label"),
        ({"map": "L2"}, "map must be cosine or l2"),
        ({"ot": True}, "ot=true .* set backbone.detector.map=l2"),
        ({"codebook_init": "zeros"}, "codebook_init must be data, normal or reference"),
        ({"codebook_update": "step"}, "codebook_update must be batch or image"),
        ({"revival": 1.0}, "revival"),
        ({"decay": 1.5}, "decay"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"^backbone.detector.{told}"):
        make(**arguments)


# --- as a detector ---------------------------------------------------------------------------


def test_it_offers_everything_a_detector_can() -> None:
    model = make()
    view = DetectorView(model, lambda _: pytest.fail("it has features of its own"))
    check_signatures(view)
    assert model.image_size == (32, 48)
    images = torch.randn(2, 3, 32, 48)
    encoded = view.encode(images)
    assert not encoded.requires_grad
    model.eval()
    assert torch.equal(view.anomaly_map(encoded), model(images))
    assert view.features(images).shape == (2, 24, 8)
    trained = {id(p) for p in view.trainable_parameters()}
    frozen = {id(p) for p in model.encoder.parameters()}
    assert not trained & frozen
    assert len(trained) + len(frozen) == len(list(model.parameters()))
    model.requires_grad_(requires_grad=False).requires_grad_(requires_grad=True)
    assert all(p.requires_grad for p in view.trainable_parameters())
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_training_returns_the_map_that_distillation_needs_whatever_is_evaluated() -> None:
    encoded = encoded_images()
    plain, native = make(), make(map="l2")
    assert torch.equal(plain.train().anomaly_map(encoded), native.train().anomaly_map(encoded))
    plain.eval(), native.eval()
    maps = native.anomaly_map(encoded)
    assert not torch.allclose(plain.anomaly_map(encoded), maps)
    reconstructed = native._reconstruct(encoded.flatten(2).mT, None)[0]
    expected = (reconstructed - encoded.flatten(2).mT).square().sum(-1).sqrt().view(4, 4, 6)
    torch.testing.assert_close(maps, expected)


def test_the_latent_loss_belongs_to_the_last_training_map() -> None:
    model = make(latent_weight=0.5).train()
    with pytest.raises(RuntimeError, match="after each anomaly_map"):
        model.auxiliary_loss()
    encoded = encoded_images()
    twin = copy.deepcopy(model)
    model.anomaly_map(encoded)
    copy.deepcopy(model)  # a graph is left behind, which cannot be copied
    latent = model.auxiliary_loss()
    assert latent.requires_grad
    with pytest.raises(RuntimeError, match="exists once"):
        model.auxiliary_loss()
    loss = twin.loss(encoded, step=0, total_steps=1)
    reconstructed = make(latent_weight=0.5).train()._reconstruct(encoded.flatten(2).mT, None)[0]
    torch.testing.assert_close(loss, latent + F.mse_loss(reconstructed, encoded.flatten(2).mT))


def test_an_image_scores_by_its_most_anomalous_cell() -> None:
    model = make()
    maps = torch.zeros(2, 4, 6)
    maps[0, 1, 2] = 1.0
    maps[1, 1:3, 2:4] = 1.0
    scores = model.image_score(maps)
    assert 0.5 < float(scores[0]) < 0.9
    assert float(scores[1]) == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(model.image_score(maps + 1.0), scores + 1.0)


def test_evaluation_changes_nothing() -> None:
    model = make(classes=2, revival=0.5)
    model.train().anomaly_map(encoded_images(), category=torch.tensor([0, 1, 0, 1]))
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = model.anomaly_map(encoded_images(seed=5))
    assert torch.equal(model.anomaly_map(encoded_images(seed=5)), first)
    alone = model.anomaly_map(encoded_images(seed=5)[[2]])
    torch.testing.assert_close(alone, first[[2]], rtol=0.0, atol=1e-5)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_initial_weights_and_codes_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    states = [make(seed=seed) for seed in (1, 1, 2)]
    for model in states:
        model.train().anomaly_map(encoded_images())  # codes are sampled from tokens
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.state_dict() for model in states]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for key in ("layers.1.linear1.weight", "codebooks.0.embed", "positions.rows"):
        assert not torch.equal(weights[0][key], weights[2][key])


def test_it_learns_and_dropout_acts_in_training_only() -> None:
    model = make(dropout=0.2).train()
    encoded = encoded_images(8)
    optimizer = StableAdamW(model.parameter_groups(), OptimizerSettings(lr=3e-3))
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = model.loss(encoded, step=step, total_steps=40)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert not torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
    model.eval()
    assert torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))


def test_bfloat16_and_half_precision_inputs_stay_close() -> None:
    model = make()
    model.train().anomaly_map(encoded_images())
    model.eval()
    expected = model.anomaly_map(encoded_images())
    torch.testing.assert_close(
        model.anomaly_map(encoded_images().half()), expected, rtol=0.0, atol=0.02
    )
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(encoded_images(), step=0, total_steps=1)
        maps = model.anomaly_map(encoded_images())
    assert maps.dtype == loss.dtype == torch.float32
    assert model.get_buffer("codebooks.0.embed").dtype == torch.float32


def test_it_goes_through_all_stages_of_the_plugin() -> None:
    model = wrap(
        make(encoder=FakeEncoder((2, 2)), map="l2", ot=True), distill_steps=6, finetune_steps=6
    )
    trainer = quiet_trainer(model.total_steps)
    trainer.fit(model, loader())
    scores = model.training_scores()
    assert bool(torch.isfinite(scores.score).all())
    saved: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(saved)
    assert "detector.codebooks.2.embed" in saved["state_dict"]
    assert not any(".encoder." in key for key in saved["state_dict"])


@pytest.mark.parametrize("routing", ["nearest", "label"])
def test_with_categories_it_resumes_as_if_left_alone(tmp_path: Path, routing: str) -> None:
    def wrapped() -> MeDSWrapper:
        detector = make(encoder=FakeEncoder((2, 2)), classes=2, routing=routing, revival=0.05)
        before = {name: value.clone() for name, value in detector.state_dict().items()}
        model = wrap(detector, distill_steps=5, finetune_steps=5)
        # The check at wrap time has moved no code and no mean.
        for name, value in detector.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
        return model

    whole, begun, resumed = wrapped(), wrapped(), wrapped()
    quiet_trainer(whole.total_steps).fit(whole, loader())
    trainer = quiet_trainer(3)
    trainer.fit(begun, loader())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    quiet_trainer(whole.total_steps).fit(
        resumed, loader(), ckpt_path=tmp_path / "model.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert int(resumed.detector.get_buffer("codebooks.0.started").sum()) == 2
    scores = whole.training_scores().score
    torch.testing.assert_close(resumed.training_scores().score, scores, rtol=0, atol=0)
