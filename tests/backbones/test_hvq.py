"""HVQ: parity with the reference, its structure, and what the plugin asks of a detector."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.hvq import HVQ
from backbones.hvq_checkpoint import split_reference
from meds_plugin.detectors.outputs import check_maps
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.base import FrozenEncoder
from meds_plugin.encoders.build import build_encoder
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW
from meds_plugin.utils.errors import UserError
from tests.toys import loader, port_names, quiet_trainer, wrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meds_plugin.wrapper import MeDSWrapper

    Golden = Callable[[str], dict[str, Any]]

SMALL = {"embed_dim": 16, "codes": 24, "hidden": 32, "heads": 4, "depth": 2}


class Given(FrozenEncoder):
    """Stands for an encoder of any kind: its maps are fixed functions of the image."""

    def __init__(
        self,
        grid: tuple[int, int] = (4, 6),
        channels: tuple[int, ...] = (3, 5),
        *,
        additive: bool = False,
    ) -> None:
        super().__init__(nn.BatchNorm2d(1), (8 * grid[0], 8 * grid[1]), range(len(channels)))
        self.grid = grid
        self.channels = channels
        self.additive = additive
        self.train(mode=False)

    def layer_maps(self, images: Tensor) -> list[Tensor]:
        pooled = F.avg_pool2d(images, 8)
        return [
            torch.stack(
                [torch.sin((k + level) * pooled).sum(1) for k in range(1, count + 1)], dim=1
            )
            for level, count in enumerate(self.channels)
        ]

    def features(self, images: Tensor) -> Tensor:
        return torch.cat(self.layer_maps(images), dim=1).flatten(2).mT


def make(**arguments: Any) -> HVQ:
    settings: dict[str, Any] = {**SMALL, "dropout": 0.0, **arguments}
    return HVQ(settings.pop("encoder", None) or Given(), **settings)


def some(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 8, 4, 6, generator=torch.Generator().manual_seed(seed))


class Reference:
    """The reference's weights and outputs, as tensors."""

    def __init__(self, golden: Golden) -> None:
        self.arrays = golden("hvq_tiny")
        self.ot = golden("hvq_tiny_ot")
        self.weights = {
            k.removeprefix("sd."): torch.from_numpy(v)
            for k, v in self.arrays.items()
            if k.startswith("sd.")
        }

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.arrays[key])

    def model(self, **arguments: Any) -> HVQ:
        settings = {"routing": "label", "map": "l2", "codebook_update": "image", **arguments}
        model = HVQ(
            Given((14, 14), (2, 3, 4, 7)),
            embed_dim=16,
            codes=16,
            hidden=24,
            heads=8,
            depth=4,
            dropout=0.0,
            classes=3,
            **settings,
        )
        model.encoder.image_size = (224, 224)
        model.load_reference_state_dict(self.weights)
        return model

    def own(self, values: dict[str, Tensor], model: HVQ) -> dict[str, Tensor]:
        """Bring values under the authors' names to ours."""
        return split_reference(values, model.state_dict(), classes=3)[0]


@pytest.fixture
def reference(golden: Golden) -> Reference:
    return Reference(golden)


# --- parity with the reference ---------------------------------------------------------------


def quantised_ids(model: HVQ) -> list[Tensor]:
    """Record the codes' indices of the next forwards, in the order of the lookups."""
    seen: list[Tensor] = []
    for level in model.codebooks:
        level.register_forward_hook(lambda _m, _i, out: seen.append(out[2]))
    return seen


def test_evaluation_is_the_references(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reference.model().eval()
    aligned, labels = reference["input_aligned"], reference["labels"]
    monkeypatch.setattr(model, "encode", lambda _: aligned)
    seen = quantised_ids(model)
    targets, rebuilt = model.reconstruct(torch.zeros(4, 3, 224, 224), category=labels)
    assert torch.equal(targets[0], aligned)
    expected = reference["eval.feature_rec"]
    torch.testing.assert_close(rebuilt[0], expected, rtol=0.0, atol=1e-4)
    assert torch.equal(torch.stack(seen[1:]), reference["eval.quant_ids"])
    maps = model.anomaly_map(aligned, category=labels)
    large = F.interpolate(maps[:, None], size=(224, 224), mode="bilinear", align_corners=True)
    own = large[..., ::7, ::7]
    torch.testing.assert_close(own, reference["eval.pred_sub7"], rtol=0.0, atol=1e-4)
    scores = reference["eval.score_max_avgpool16"]
    torch.testing.assert_close(model.image_score(maps), scores, rtol=0.0, atol=1e-4)


def test_transport_scoring_is_the_references(reference: Reference) -> None:
    aligned, labels = reference["input_aligned"], reference["labels"]
    plain = reference.model().eval().anomaly_map(aligned, category=labels)
    model = reference.model(ot=True).eval()
    maps = model.anomaly_map(aligned, category=labels)
    score = torch.as_tensor(reference.ot["eval.ot_score"]).view(4, 14, 14)
    torch.testing.assert_close((maps - plain) / 80.0, score, rtol=0.0, atol=1e-5)
    large = F.interpolate(maps[:, None], size=(224, 224), mode="bilinear", align_corners=True)
    expected = torch.as_tensor(reference.ot["eval.pred_sub7"])
    torch.testing.assert_close(large[..., ::7, ::7], expected, rtol=0.0, atol=5e-3)
    scores = torch.as_tensor(reference.ot["eval.score_max_avgpool16"])
    torch.testing.assert_close(model.image_score(maps), scores, rtol=0.0, atol=5e-3)


def test_training_is_the_references(reference: Reference) -> None:
    model = reference.model().train()
    seen = quantised_ids(model)
    aligned, labels = reference["input_aligned"], reference["labels"]
    loss = model.loss(aligned, step=0, total_steps=1, category=labels)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(float(reference["train.loss"]), abs=1e-4)
    assert torch.equal(torch.stack(seen[1:]), reference["train.quant_ids"])

    parameters = dict(model.named_parameters())
    names = [str(name) for name in reference.arrays["grad.names"]]
    norms = dict(zip(names, reference["train.gradnorm"].tolist(), strict=True))
    kinds = {name: torch.full((1, 1), norm) for name, norm in norms.items()}
    expected = reference.own(kinds, model)
    checked = 0
    for name, norm in expected.items():
        if name not in parameters:
            continue
        gradient = parameters[name].grad
        assert gradient is not None
        parts = gradient if name.startswith("output_") else gradient.unsqueeze(0)
        for part, each in zip(parts, norm.flatten().tolist(), strict=True):
            assert float(part.double().norm()) == pytest.approx(each, rel=5e-3), name
            checked += 1
    assert checked == len(names) - 2  # input_proj has no gradient
    given = {
        key.removeprefix("train.grad."): reference[key]
        for key in reference.arrays
        if key.startswith("train.grad.")
    }
    output = given.pop("output_proj_list.1.weight")
    compared = {"output": (model.output_weight.grad, output)}
    for name, value in reference.own(given, model).items():
        if name in parameters:
            compared[name] = (parameters[name].grad, value)
    assert len(compared) == 8
    for name, (gradient, value) in compared.items():
        assert gradient is not None
        own = gradient[1] if name == "output" else gradient
        assert (own - value).norm() <= 5e-3 * value.norm(), name


def test_codebooks_after_training_are_the_references(reference: Reference) -> None:
    model = reference.model().train()
    before = model.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    model.loss(reference["input_aligned"], step=0, total_steps=1, category=reference["labels"])
    for level, buffer in [(i, b) for i in (0, 4) for b in ("embed", "cluster_size", "embed_avg")]:
        own = model.get_buffer(f"codebooks.{level}.{buffer}")
        stacked = torch.stack(
            [reference[f"after.quantize_list_{level + 1}.{place}.{buffer}"] for place in range(3)]
        )
        expected = stacked if buffer == "cluster_size" else stacked.mT
        assert not torch.equal(own, before[f"codebooks.{level}.{buffer}"])
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_training_maps_and_latent_loss_are_of_the_references_forward(reference: Reference) -> None:
    model = reference.model().train()
    aligned, labels = reference["input_aligned"], reference["labels"]
    maps = model.anomaly_map(aligned, category=labels)
    expected = 1.0 - F.cosine_similarity(reference["train.feature_rec"], aligned, dim=1)
    torch.testing.assert_close(maps, expected, rtol=0.0, atol=1e-4)
    latent = 0.25 * float(reference["train.latent_diff"])
    assert model.auxiliary_loss().item() == pytest.approx(latent, abs=1e-4)


# --- checkpoints of the authors' code --------------------------------------------------------


def test_a_checkpoint_loads_codes_and_the_encoders_statistics(reference: Reference) -> None:
    encoder = build_encoder(
        model="tf_efficientnet_b0", image_size=224, layers=[0, 1, 2, 3], weights="random"
    )
    arguments: dict[str, Any] = {
        "embed_dim": 16,
        "codes": 16,
        "hidden": 24,
        "classes": 3,
        "seed": 1,
    }
    model = HVQ(encoder, **arguments)
    weights = {f"module.{key}": value for key, value in authors(model).items()}
    assert "module.enc._conv_stem.weight" in weights
    other = HVQ(
        build_encoder(
            model="tf_efficientnet_b0",
            image_size=224,
            layers=[0, 1, 2, 3],
            weights="random",
            seed=5,
        ),
        **{**arguments, "seed": 2},
    )
    other.load_reference_state_dict(weights)
    before, after = model.state_dict(), other.state_dict()
    for key, value in before.items():
        if key.endswith(".started"):
            assert bool(after[key].all())  # the codes are there: none are drawn
        else:
            assert torch.equal(after[key], value), key


def authors(model: HVQ) -> dict[str, Tensor]:
    """Name a model's weights as the authors do."""
    named: dict[str, Tensor] = {"input_proj.weight": torch.zeros(2, 2)}
    for key, value in model.state_dict().items():
        if key.startswith("codebooks.") and not key.endswith((".started", ".draws")):
            _, level, buffer = key.split(".")
            for index, each in enumerate(value):
                turned = each if buffer == "cluster_size" else each.mT
                named[f"quantize_list_{int(level) + 1}.{index}.{buffer}"] = turned
        elif key.startswith("output_"):
            kind = key.removeprefix("output_")
            named |= {f"output_proj_list.{i}.{kind}": each for i, each in enumerate(value)}
        elif key.startswith("layers."):
            named[f"encoder.{key}"] = value
        elif key.startswith(("decoder.", "norm.")):
            place = "decoder." if key.startswith("norm.") else "decoder.layers."
            rest = key.removeprefix("decoder.").replace("cross_attn", "multihead_attn")
            named[place + rest] = value
        elif key.startswith("embed."):
            shaped = value[..., None, None] if key.endswith("weight") else value
            named[key.replace("embed", "quantize_conv_t")] = shaped
    named["pos_embed.row_embed.weight"] = model.positions.rows.detach()
    named["pos_embed.col_embed.weight"] = model.positions.columns.detach()
    return named | {f"enc.{k}": v for k, v in port_names(model.encoder.model.state_dict()).items()}


@pytest.mark.parametrize("lost", ["quantize_list_2.1.embed", "decoder.layers.1.norm3.bias"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(reference: Reference, lost: str) -> None:
    model = reference.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong = {key: value + 1.0 for key, value in reference.weights.items() if key != lost}
    with pytest.raises(
        UserError, match=r"the reference checkpoint does not fit the model: \d+ missing"
    ):
        model.load_reference_state_dict(wrong)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


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
        (5, False, None, (0, 1, 2, 3, 4)),  # no stage of a pyramid holds what another does
        (4, True, (3, 1), (3, 1)),
        (5, False, (3, 1), (3, 1)),
    ],
)
def test_targets_are_some_layers_channels_one_after_another(
    layers: int, additive: bool, given: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    encoder = Given(channels=tuple(range(2, 2 + layers)), additive=additive)
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
        assert tuple(maps.shape[1:]) == encoder.grid
        assert float(maps.min()) >= 0.0
        assert float(maps.max()) <= 2.0
    encoded, features = detector.encode_and_features(images)
    assert torch.equal(encoded, detector.encode(images))
    assert torch.equal(features, detector.features(images))
    targets, rebuilt = detector.reconstruct(images)
    expected = 1.0 - F.cosine_similarity(targets[0], rebuilt[0], dim=1)
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


# --- categories ------------------------------------------------------------------------------


def test_one_set_of_codes_asks_for_no_category() -> None:
    model = make().train()
    encoded = some()
    twin = copy.deepcopy(model)
    maps = model.anomaly_map(encoded)
    assert torch.equal(twin.anomaly_map(encoded, category=torch.tensor([3, 1, 0, -1])), maps)


def test_categories_have_codes_and_last_layers_of_their_own() -> None:
    model = make(classes=3, routing="label").train()
    encoded, category = some(), torch.tensor([0, 2, 0, 2])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.autograd.backward(model.loss(encoded, step=0, total_steps=1, category=category))
    for level in range(3):
        own, old = model.get_buffer(f"codebooks.{level}.embed"), before[f"codebooks.{level}.embed"]
        assert torch.equal(own[1], old[1])
        assert not torch.equal(own[0], old[0])
    assert model.output_weight.grad is not None
    assert model.output_weight.grad.flatten(1).abs().sum(1).ne(0).tolist() == [True, False, True]
    model.eval()
    maps = model.anomaly_map(encoded, category=category)
    swapped = model.anomaly_map(encoded, category=torch.tensor([2, 2, 0, 0]))
    changed = (maps - swapped).abs().amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [True, False, False, True]


def test_without_a_label_images_go_to_the_category_they_are_most_like() -> None:
    model = make(classes=3).train()
    offset = torch.tensor([0.0, 4.0, -4.0]).view(3, 1, 1, 1)
    category = torch.tensor([0, 1, 2, 0, 1, 2])
    for step in range(3):
        model.anomaly_map(some(6, seed=step) + offset[category], category=category)
    assert model.router.count.tolist() == [6, 6, 6]
    pooled = torch.cat([(some(6, seed=s) + offset[category]).mean((2, 3)) for s in range(3)])
    for place in range(3):
        expected = pooled[category.repeat(3) == place].mean(0)
        torch.testing.assert_close(model.router.mean[place], expected)
    model.eval()
    later = torch.tensor([2, 2, 1, 0])
    encoded = some(4, seed=9) + offset[later]
    by_likeness = model.anomaly_map(encoded)
    model.router.routing = "label"
    assert torch.equal(model.anomaly_map(encoded, category=later), by_likeness)
    assert torch.equal(model.anomaly_map(encoded, category=torch.full((4,), -1)), by_likeness)
    model.router.routing = "nearest"
    wrong = torch.zeros(4, dtype=torch.long)
    assert torch.equal(model.anomaly_map(encoded, category=wrong), by_likeness)  # no label leaks


def test_images_of_no_category_do_not_move_the_means() -> None:
    model = make(classes=2).train()
    model.anomaly_map(some(), category=torch.tensor([1, -1, 1, -1]))
    assert model.router.count.tolist() == [0, 2]
    torch.testing.assert_close(model.router.mean[1], some()[[0, 2]].mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("routing", "training", "category", "told"),
    [
        ("nearest", True, None, "classes=2 needs the category"),
        ("label", False, None, "classes=2 needs the category"),
        ("label", False, 2, "index 2"),
        ("nearest", True, 5, "index 5"),
    ],
)
def test_categories_that_are_not_there_are_named(
    routing: str, training: bool, category: int | None, told: str
) -> None:
    model = make(classes=2, routing=routing).train(training)
    given = None if category is None else torch.tensor([0, 1, category, 0])
    with pytest.raises(UserError, match=told):
        model.anomaly_map(some(), category=given)


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
    encoded = some()
    plain, native = make(), make(map="l2")
    assert torch.equal(plain.train().anomaly_map(encoded), native.train().anomaly_map(encoded))
    plain.eval(), native.eval()
    maps = native.anomaly_map(encoded)
    assert not torch.allclose(plain.anomaly_map(encoded), maps)
    rebuilt = native._rebuild(encoded.flatten(2).mT, None)[0]
    expected = (rebuilt - encoded.flatten(2).mT).square().sum(-1).sqrt().view(4, 4, 6)
    torch.testing.assert_close(maps, expected)


def test_the_latent_loss_belongs_to_the_last_training_map() -> None:
    model = make(latent_weight=0.5).train()
    with pytest.raises(RuntimeError, match="after each anomaly_map"):
        model.auxiliary_loss()
    encoded = some()
    twin = copy.deepcopy(model)
    model.anomaly_map(encoded)
    copy.deepcopy(model)  # a graph is left behind, which cannot be copied
    latent = model.auxiliary_loss()
    assert latent.requires_grad
    with pytest.raises(RuntimeError, match="exists once"):
        model.auxiliary_loss()
    loss = twin.loss(encoded, step=0, total_steps=1)
    rebuilt = make(latent_weight=0.5).train()._rebuild(encoded.flatten(2).mT, None)[0]
    torch.testing.assert_close(loss, latent + F.mse_loss(rebuilt, encoded.flatten(2).mT))


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
    model.train().anomaly_map(some(), category=torch.tensor([0, 1, 0, 1]))
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = model.anomaly_map(some(seed=5))
    assert torch.equal(model.anomaly_map(some(seed=5)), first)
    alone = model.anomaly_map(some(seed=5)[[2]])
    torch.testing.assert_close(alone, first[[2]], rtol=0.0, atol=1e-5)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_initial_weights_and_codes_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    states = [make(seed=seed) for seed in (1, 1, 2)]
    for model in states:
        model.train().anomaly_map(some())  # codes are drawn from tokens
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.state_dict() for model in states]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for key in ("layers.1.linear1.weight", "codebooks.0.embed", "positions.rows"):
        assert not torch.equal(weights[0][key], weights[2][key])


def test_it_learns_and_dropout_acts_in_training_only() -> None:
    model = make(dropout=0.2).train()
    encoded = some(8)
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


def test_bfloat16_and_kept_half_precision_stay_close() -> None:
    model = make()
    model.train().anomaly_map(some())
    model.eval()
    expected = model.anomaly_map(some())
    torch.testing.assert_close(model.anomaly_map(some().half()), expected, rtol=0.0, atol=0.02)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(some(), step=0, total_steps=1)
        maps = model.anomaly_map(some())
    assert maps.dtype == loss.dtype == torch.float32
    assert model.get_buffer("codebooks.0.embed").dtype == torch.float32


def test_it_goes_through_all_stages_of_the_plugin() -> None:
    model = wrap(make(encoder=Given((2, 2)), map="l2", ot=True), distill_steps=6, finetune_steps=6)
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
        detector = make(encoder=Given((2, 2)), classes=2, routing=routing, revival=0.05)
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
