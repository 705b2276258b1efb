"""Dinomaly: parity with the reference, its structure, and what the plugin asks of a detector."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.dinomaly import Dinomaly, hard_mining_factors
from meds_plugin.detector import DetectorView, check_detector, check_maps
from meds_plugin.encoder import build_encoder
from meds_plugin.errors import UserError
from meds_plugin.optim import OptimizerSettings, stable_adamw
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]

SMALL = {"embed_dim": 32, "depth": 6, "num_heads": 4}


def make(*, image_size: object = 56, layers: object = (1, 2, 3, 4), **arguments: Any) -> Dinomaly:
    encoder: Any = build_encoder
    return Dinomaly(
        encoder(
            model="vit_base_patch14_reg4_dinov2",
            image_size=image_size,
            layers=layers,
            weights="random",
            model_args=SMALL,
        ),
        **arguments,
    )


class Reference:
    """The reference's weights and outputs, as tensors."""

    def __init__(self, golden: Golden) -> None:
        weights = golden("dinomaly_tiny_weights")
        self.weights = {k.removeprefix("sd."): torch.from_numpy(v) for k, v in weights.items()}
        self.arrays = golden("dinomaly_tiny")
        self.names = [str(name) for name in self.arrays["grad.names"]]

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.arrays[key])

    def model(self, **arguments: Any) -> Dinomaly:
        encoder = build_encoder(
            model="vit_base_patch14_reg4_dinov2",
            image_size=56,
            layers=range(2, 10),
            weights="random",
            model_args={"embed_dim": 48, "depth": 12, "num_heads": 4},
        )
        model = Dinomaly(encoder, dropout=0.0, **arguments)
        model.load_reference_state_dict(self.weights)
        return model

    def check_gradients(self, model: Dinomaly, key: str) -> None:
        """Compare the norm of every gradient, and the whole gradient where it is there."""
        own = dict(model.named_parameters())
        assert self.names == [name for name in own if not name.startswith("encoder.")]
        for name, norm in zip(self.names, self[f"{key}.gradnorm"].tolist(), strict=True):
            gradient = own[name].grad
            assert gradient is not None
            assert float(gradient.double().norm()) == pytest.approx(norm, rel=2e-3)
            if f"{key}.grad.{name}" in self.arrays:
                expected = self[f"{key}.grad.{name}"]
                assert (gradient - expected).norm() <= 2e-3 * expected.norm()


@pytest.fixture
def reference(golden: Golden) -> Reference:
    return Reference(golden)


# --- parity with the reference ---------------------------------------------------------------


def test_maps_and_features_are_the_references(reference: Reference) -> None:
    model = reference.model().eval()
    images = reference["input"]
    targets, rebuilt = model.reconstruct(images)
    for group in (0, 1):
        expected = reference[f"en.{group}"], reference[f"de.{group}"]
        torch.testing.assert_close(targets[group], expected[0], rtol=0.0, atol=1e-4)
        torch.testing.assert_close(rebuilt[group], expected[1], rtol=0.0, atol=1e-4)
    expected_map = reference["amap.patch"].squeeze(1)
    torch.testing.assert_close(model(images), expected_map, rtol=0.0, atol=1e-5)
    features = reference["memory_feature"]
    torch.testing.assert_close(model.features(images), features, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.27, 0.5, 0.9])
def test_the_loss_and_its_gradients_are_the_references(reference: Reference, share: float) -> None:
    model = reference.model(hard_mining=share)
    encoded = model.encode(reference["input"])
    loss = model.loss(encoded, step=1000, total_steps=10_000)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference[f"hm{share}.loss"]), abs=1e-5)
    reference.check_gradients(model, f"hm{share}")


@pytest.mark.parametrize("kind", ["l2", "l1"])
def test_distilling_into_the_map_has_the_references_gradients(
    reference: Reference, kind: str
) -> None:
    model = reference.model()
    maps = model.anomaly_map(model.encode(reference["input"])).flatten(1)
    compare = F.mse_loss if kind == "l2" else F.l1_loss
    loss = 10.0 * compare(maps, reference["distill.target"])
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference[f"distill.{kind}.loss"]), abs=1e-5)
    reference.check_gradients(model, f"distill.{kind}")


@pytest.mark.parametrize("stage", ["finetune", "distill"])
def test_six_optimiser_steps_go_as_in_the_reference(reference: Reference, stage: str) -> None:
    model = reference.model(hard_mining_steps=4)
    settings = OptimizerSettings(warmup=3)
    optimizer = stable_adamw(model.parameter_groups(), settings)
    encoded = model.encode(reference["input"])
    trainable = model.parameter_groups()[0]["params"]
    for step in range(6):
        rate = settings.lr_at(step, total=8)
        assert rate == pytest.approx(float(reference[f"trace.{stage}.lr"][step]), abs=1e-12)
        optimizer.param_groups[0]["lr"] = rate
        if stage == "finetune":
            loss = model.loss(encoded, step=step, total_steps=6)
        else:
            maps = model.anomaly_map(encoded).flatten(1)
            loss = 10.0 * F.mse_loss(maps, reference["distill.target"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(trainable, settings.gradient_clip)
        optimizer.step()
        assert loss.item() == pytest.approx(float(reference[f"trace.{stage}.loss"][step]), rel=1e-4)
        expected_norm = float(reference[f"trace.{stage}.gradnorm_preclip"][step])
        assert float(norm) == pytest.approx(expected_norm, rel=2e-3)
    for name in ("bottleneck.0.fc1.bias", "decoder.4.attn.proj.weight"):
        final = reference[f"trace.{stage}.final.{name}"]
        torch.testing.assert_close(model.get_parameter(name).detach(), final, rtol=0.0, atol=1e-5)


# --- checkpoints of the authors' code --------------------------------------------------------


def test_a_checkpoint_without_the_encoder_leaves_the_encoder(reference: Reference) -> None:
    model = reference.model()
    before = model.encoder.model.norm.weight.clone()
    part = {k: v + 1.0 for k, v in reference.weights.items() if not k.startswith("encoder.")}
    model.load_reference_state_dict(part)
    assert torch.equal(model.encoder.model.norm.weight, before)
    assert torch.equal(model.get_parameter("decoder.7.norm2.bias"), part["decoder.7.norm2.bias"])


@pytest.mark.parametrize("lost", ["decoder.3.norm1.bias", "encoder.blocks.3.norm1.bias"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(reference: Reference, lost: str) -> None:
    model = reference.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong = {key: value + 1.0 for key, value in reference.weights.items() if key != lost}
    with pytest.raises(UserError, match=lost.removeprefix("encoder.").replace(".", r"\.")):
        model.load_reference_state_dict(wrong)
    wrong = {**reference.weights, "aggregation.0.norm.bias": torch.zeros(3)}
    with pytest.raises(UserError, match=r"1 unexpected \(aggregation\.0\.norm\.bias\)"):
        model.load_reference_state_dict(wrong)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


# --- structure -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "arguments", "groups", "decoder_groups"),
    [
        ((1, 2, 3, 4), {}, [[0, 1], [2, 3]], [[0, 1], [2, 3]]),
        ((1, 2, 4), {}, [[0], [1, 2]], [[0], [1, 2]]),
        ((3,), {}, [[0]], [[0]]),
        ((1, 2, 3), {"groups": [[2, 0], [1]]}, [[2, 0], [1]], [[2, 0], [1]]),
        ((1, 2, 3), {"groups": [[0, 1, 2]], "decoder_depth": 2}, [[0, 1, 2]], [[0, 1]]),
        ((1, 2, 3, 4), {"decoder_depth": 5}, [[0, 1], [2, 3]], [[0, 1], [2, 3, 4]]),
    ],
)
def test_groups_of_any_size_on_a_grid_that_is_not_square(
    layers: tuple[int, ...],
    arguments: dict[str, Any],
    groups: list[list[int]],
    decoder_groups: list[list[int]],
) -> None:
    model = make(image_size=(28, 70), layers=layers, **arguments).eval()
    init_wide(model)
    images = torch.randn(2, 3, 28, 70)
    encoded = model.encode(images)
    assert encoded.shape == (2, len(groups), 15, 32)
    assert not encoded.requires_grad

    tokens = model.encoder.block_tokens(images)
    current = model.bottleneck[0](torch.stack(tokens).mean(0))
    outputs: list[Tensor] = []
    for block in model.decoder:
        current = block(current)
        outputs.insert(0, current)
    maps = []
    targets, rebuilt = model.reconstruct(images)
    for index, (group, own) in enumerate(zip(groups, decoder_groups, strict=True)):
        target = torch.stack([tokens[i] for i in group]).mean(0)[:, 5:]
        out = torch.stack([outputs[i] for i in own]).mean(0)[:, 5:]
        torch.testing.assert_close(targets[index], target.mT.reshape(2, 32, 2, 5))
        torch.testing.assert_close(rebuilt[index], out.mT.reshape(2, 32, 2, 5))
        maps.append(1.0 - F.cosine_similarity(targets[index], rebuilt[index], dim=1))
    found = model(images)
    check_maps(found, batch=2, name="Dinomaly")
    assert found.shape == (2, 2, 5)
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


def init_wide(model: Dinomaly) -> None:
    """Make weights large enough for every part to matter."""
    for module in (model.bottleneck, model.decoder):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        for block in model.encoder.model.blocks:
            block.ls1.gamma.fill_(0.7)
            block.ls2.gamma.fill_(0.5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"groups": [[0, 1], [2]]}, "groups"),
        ({"groups": [[0, 1], [1, 2, 3]]}, "groups"),
        ({"groups": [[0, 1, 2, 3], []]}, "groups"),
        ({"decoder_depth": 1}, "decoder_depth=1"),
        ({"heads": 5}, "heads=5"),
        ({"dropout": 1.5}, "dropout"),
        ({"hard_mining": -0.1}, "hard_mining"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}"):
        make(**arguments)


def test_an_encoder_without_tokens_is_refused() -> None:
    encoder = build_encoder(model="resnet10t", image_size=64, layers=[0, 1], weights="random")
    with pytest.raises(UserError, match="backbone=dinomaly needs a vision transformer"):
        Dinomaly(encoder)


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
    model = make(hard_mining=0.8, hard_mining_steps=10, hard_mining_factor=0.3)
    encoded = model.encode(torch.randn(1, 3, 56, 56))
    for step in (0, 5, 10, 999):
        model.loss(encoded, step=step, total_steps=20)
    assert shares == [(0.0, 0.3), (0.4, 0.3), (0.8, 0.3), (0.8, 0.3)]


# --- as a detector ---------------------------------------------------------------------------


def test_it_offers_everything_a_detector_can() -> None:
    model = make()
    view = DetectorView(model, lambda _: pytest.fail("it has features of its own"))
    check_detector(view)
    images = torch.randn(2, 3, 56, 56)
    encoded = view.encode(images)
    model.eval()
    assert torch.equal(view.anomaly_map(encoded), model(images))
    assert view.features(images).shape == (2, 16, 32)
    trained = {id(p) for p in view.trainable_parameters()}
    frozen = {id(p) for p in model.encoder.parameters()}
    assert not trained & frozen
    assert len(trained) + len(frozen) == len(list(model.parameters()))


def test_the_encoder_stays_frozen() -> None:
    model = make()
    model.requires_grad_(requires_grad=False).requires_grad_(requires_grad=True)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    model.train()
    assert model.bottleneck[0].training
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.parameter_groups()[0]["params"])


def test_initial_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (make(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.get_parameter("decoder.3.mlp.fc2.weight") for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].abs().max() <= 0.03
    assert not torch.equal(weights[0], first.get_parameter("decoder.2.mlp.fc2.weight"))


def test_it_learns_and_dropout_acts_in_training_only() -> None:
    model = make(dropout=0.2)
    encoded = model.encode(torch.randn(4, 3, 56, 56))
    assert not torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))
    optimizer = stable_adamw(model.parameter_groups(), OptimizerSettings())
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model.loss(encoded, step=step, total_steps=20)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.eval()
    assert torch.equal(model.anomaly_map(encoded), model.anomaly_map(encoded))


def test_bfloat16_and_kept_half_precision_stay_close() -> None:
    model = make(dropout=0.0)
    init_wide(model)
    encoded = model.encode(torch.randn(2, 3, 56, 56))
    expected = model.anomaly_map(encoded)
    torch.testing.assert_close(model.anomaly_map(encoded.half()), expected, rtol=0.0, atol=2e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model.anomaly_map(encoded)
        loss = model.loss(encoded, step=500, total_steps=1000)
    assert maps.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0.0, atol=0.03)
    torch.autograd.backward(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_it_compiles_without_a_graph_break() -> None:
    model = make(dropout=0.0)
    encoded = model.encode(torch.randn(2, 3, 56, 56))
    expected = model.loss(encoded, step=500, total_steps=1000)
    compiled = torch.compile(model.loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(encoded, step=500, total_steps=1000), expected)


def test_importing_backbones_loads_nothing_heavy() -> None:
    code = (
        "import sys, backbones; assert not {'torch', 'timm'} & set(sys.modules); "
        "import backbones.dinomaly; assert 'timm' not in sys.modules; "
        "assert backbones.Dinomaly is backbones.dinomaly.Dinomaly"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
    import backbones

    assert all(hasattr(backbones, name) for name in backbones.__all__)
    assert not hasattr(backbones, "NoSuchDetector")
