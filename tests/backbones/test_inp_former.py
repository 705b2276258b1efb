"""INP-Former: parity with the reference, its blocks and losses, and training under the plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.inp_former import (
    AggregationBlock,
    INPFormer,
    PrototypeBlock,
    adaptive_factors,
    prototype_distances,
)
from meds_plugin.evaluation.protocol import EvaluationProtocol, evaluation_maps, evaluation_masks
from meds_plugin.metrics import image_score
from meds_plugin.training.optimizer import OptimizerSettings
from meds_plugin.utils.errors import UserError
from tests.backbones.reference import Reference, tensors_of
from tests.backbones.small import loader_of, noisy_images, small, widen
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Golden = Callable[[str], dict[str, Any]]

TRAINING = OptimizerSettings(lr=1e-3, final_lr=1e-4, warmup=3)


@pytest.fixture
def reference(golden: Golden) -> Reference:
    arrays = golden("inpformer_tiny")
    return Reference(arrays, tensors_of(arrays), width=32, kind=INPFormer)


# --- parity with the reference ---------------------------------------------------------------


def test_maps_and_image_scores_are_the_references(reference: Reference) -> None:
    model = reference.model()
    reference.check_maps(model)
    protocol = EvaluationProtocol(resize=64, mask_rule="half")
    maps = evaluation_maps(model(reference["input"]).detach(), (56, 56), protocol)
    torch.testing.assert_close(maps, reference["eval64.amap"], rtol=0.0, atol=1e-5)
    scores = image_score(maps, top=protocol.image_top)
    torch.testing.assert_close(scores, reference["eval64.image_score"], rtol=0.0, atol=1e-5)
    masks = evaluation_masks(reference["gt"].squeeze(1), protocol)
    assert torch.equal(masks, reference["eval64.mask"].bool())


def test_prototypes_are_as_near_as_the_references(reference: Reference) -> None:
    model = reference.model()
    tokens = model.fuse(model.encode(reference["input"]))
    distances, index = prototype_distances(tokens, model.gather(tokens))
    torch.testing.assert_close(distances, reference["proto_distance"], rtol=0.0, atol=1e-5)
    assert torch.equal(index, reference["proto_index"])
    loss = distances.mean()
    assert loss.item() == pytest.approx(float(reference["g_loss"]), abs=1e-5)
    torch.autograd.backward(loss)
    reference.check_gradients(model, "gather_only")


def test_the_loss_and_its_gradients_are_the_references(reference: Reference) -> None:
    model = reference.model()
    encoded = model.encode(reference["input"])
    loss = model.loss(encoded, step=3, total_steps=10)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference["train.total"]), abs=1e-5)
    reference.check_gradients(model, "train")
    cosine = reference.model(gather_weight=0.0).loss(encoded, step=0, total_steps=1)
    assert cosine.item() == pytest.approx(float(reference["train.cos_loss"]), abs=1e-5)


def test_distilling_into_the_map_has_the_references_gradients(reference: Reference) -> None:
    reference.check_distillation(reference.model(), "l2")


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_six_optimiser_steps_go_as_in_the_reference(reference: Reference, stage: str) -> None:
    # From the reference's own targets: the first updates have the size of the learning rate however
    # small the gradient, so that the encoder's last digit would show in the fourth of the loss.
    stored = torch.cat([reference["en.0"], reference["en.1"]], dim=1).flatten(2).mT
    # Distilling, a gradient near zero flips with the processor: float64 leaves the stored float32
    # trace by 1.7 % of a norm and 1.1e-4 of a weight, an EPYC in float32 too, a Xeon does not.
    drift = 12.0 if stage == "distill" else 1.0
    reference.check_six_steps(reference.model(), stored, stage, TRAINING, drift=drift)


# --- blocks ----------------------------------------------------------------------------------


def test_prototypes_gather_by_softmax_attention() -> None:
    block = randomised(AggregationBlock(12, 3))
    prototypes, tokens = torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    own, other = (
        F.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias, 1e-8)
        for x in (prototypes, tokens)
    )
    query, key, value = heads(block, own, other)
    weights = (query @ key.mT / 2.0).softmax(-1)
    middle = prototypes + block.attn.proj((weights @ value).transpose(1, 2).reshape(2, 4, 12))
    torch.testing.assert_close(block(prototypes, tokens), after_mlp(block, middle))


def test_a_patch_is_a_mixture_of_prototypes_with_positive_weights() -> None:
    block = randomised(PrototypeBlock(12, 3))
    tokens, prototypes = torch.randn(2, 7, 12), torch.randn(2, 4, 12)
    own, other = (
        F.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias, 1e-8)
        for x in (tokens, prototypes)
    )
    query, key, value = heads(block, own, other)
    cosine = F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1)
    weights = (cosine * block.attn.learn_scale).clamp_min(0)
    assert (weights == 0).any()
    middle = block.attn.proj((weights @ value).transpose(1, 2).reshape(2, 7, 12))
    torch.testing.assert_close(block(tokens, prototypes), after_mlp(block, middle))


def randomised(block: Any) -> Any:
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def heads(block: Any, tokens: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, head by head, of three heads of width four."""
    query, (key, value) = block.attn.q(tokens), block.attn.kv(others).chunk(2, dim=-1)
    split = [x.reshape(2, -1, 3, 4).transpose(1, 2) for x in (query, key, value)]
    return split[0], split[1], split[2]


def after_mlp(block: Any, tokens: Tensor) -> Tensor:
    normed = F.layer_norm(tokens, (12,), block.norm2.weight, block.norm2.bias, 1e-8)
    result: Tensor = tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(normed)))
    return result


# --- losses ----------------------------------------------------------------------------------


def test_gradients_grow_with_a_power_of_the_relative_distance() -> None:
    distances = torch.rand(3, 2, 5)
    distances[:, 1] *= 10  # a group's unit does not matter
    factors = adaptive_factors(distances, 3.0)
    means = torch.stack([distances[:, group].mean() for group in (0, 1)]).view(1, 2, 1)
    torch.testing.assert_close(factors, (distances / means) ** 3)
    assert (adaptive_factors(distances, 0.0) == 1).all()


@pytest.mark.parametrize("distance", [0.0, -1e-7])
def test_a_perfect_reconstruction_has_finite_factors(distance: float) -> None:
    assert (adaptive_factors(torch.full((2, 2, 3), distance), 3.0) == 0).all()


def test_the_nearest_prototype_counts() -> None:
    prototypes = torch.eye(4)[:3].expand(2, 3, 4)
    tokens = torch.tensor([[[3.0, 0, 0, 0], [1, 2, 0, 0]], [[0, 0, 0, 1], [0, 0, 1e-3, 0]]])
    distances, index = prototype_distances(tokens.bfloat16(), prototypes)
    assert distances.dtype == torch.float32
    expected = torch.tensor([[0.0, 1 - 2 / 5**0.5], [1.0, 0.0]])
    torch.testing.assert_close(distances, expected, atol=1e-2, rtol=0)
    assert index[:, 1].tolist() == [1, 2]
    assert index[0, 0] == 0


# --- the detector ----------------------------------------------------------------------------


def test_reconstruction_passes_the_bottleneck_and_mixes_the_images_prototypes() -> None:
    model = small(INPFormer, image_size=(28, 70), layers=(1, 2, 4), prototypes=3)
    widen(model)
    images = torch.randn(2, 3, 28, 70)
    encoded = model.encode(images)
    assert encoded.shape == (2, 10, 64)  # without the prefix tokens
    tokens = torch.stack(model.encoder.tokens(images)).mean(0)[:, 5:]
    torch.testing.assert_close(model.fuse(encoded), tokens)
    own = model.aggregation[0](model.prototype_token.expand(2, 3, 32), tokens)
    assert not torch.allclose(own[0], own[1])
    first = model.decoder[0](model.bottleneck[0](tokens), own)
    second = model.decoder[1](first, own)
    third = model.decoder[2](second, own)
    _, reconstructed = model.reconstruct(images)
    torch.testing.assert_close(reconstructed[0], third.mT.reshape(2, 32, 2, 5))
    expected = ((first + second) / 2).mT.reshape(2, 32, 2, 5)
    torch.testing.assert_close(reconstructed[1], expected)


def test_initial_prototypes_and_scales_are_the_references() -> None:
    model = small(INPFormer, prototypes=200)
    token = model.prototype_token.detach()
    assert float(token.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(token.std()) == pytest.approx(1.0, rel=0.05)
    for block in model.decoder:
        assert block.attn.learn_scale.shape == (4, 1, 1)
        assert (block.attn.learn_scale == 1).all()
        assert block.attn.kv.weight.abs().max() <= 0.03
    assert model.aggregation[0].attn.q.weight.abs().max() <= 0.03
    assert not model.aggregation[0].mlp.fc1.bias.any()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prototypes": 0}, "prototypes must be a whole number of at least 1, got 0"),
        ({"prototypes": 2.5}, "prototypes"),
        ({"gather_weight": None}, "gather_weight must be a number of at least 0, got None"),
        ({"gather_weight": -0.1}, "gather_weight"),
        ({"mining_power": float("nan")}, "mining_power"),
        ({"mining_power": float("inf")}, "mining_power"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}"):
        small(INPFormer, **arguments)


@pytest.mark.parametrize("step", [3, 9])
def test_a_resumed_fit_under_the_wrapper_ends_where_an_unbroken_one_does(
    tmp_path: Path, step: int
) -> None:
    images = loader_of(noisy_images(10, size=56, defective=(4, 9)))

    def make() -> Any:
        return wrap(small(INPFormer), distill_steps=6, finetune_steps=6)

    whole, part, resumed = make(), make(), make()
    quiet_trainer(whole.total_steps).fit(whole, images)
    trainer = quiet_trainer(step)
    trainer.fit(part, images)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    start = small(INPFormer).state_dict()
    end = whole.detector.state_dict()
    moved = {key for key in start if not torch.equal(start[key], end[key])}
    assert moved == {key for key in start if not key.startswith("encoder.")}
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {f"detector.{key}" for key in moved}
    quiet_trainer(resumed.total_steps).fit(
        resumed, images, ckpt_path=tmp_path / "c.ckpt", weights_only=True
    )
    again = resumed.detector.state_dict()
    assert all(torch.equal(again[key], end[key]) for key in end)
    assert torch.equal(whole.training_scores().score, resumed.training_scores().score)
