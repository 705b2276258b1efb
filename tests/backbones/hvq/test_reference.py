"""HVQ: parity with the reference, and checkpoints of the authors' code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.hvq import HVQ
from backbones.hvq.checkpoint import split_reference
from meds_plugin.encoders.build import build_encoder
from meds_plugin.utils.errors import UserError
from tests.backbones.hvq.small import FakeEncoder
from tests.backbones.reference import tensors_of
from tests.toys import port_names

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]


class Reference:
    """The reference's weights and outputs, as tensors."""

    def __init__(self, golden: Golden) -> None:
        self.arrays = golden("hvq_tiny")
        self.ot = golden("hvq_tiny_ot")
        self.weights = tensors_of(self.arrays)

    def __getitem__(self, key: str) -> Tensor:
        return torch.as_tensor(self.arrays[key])

    def model(self, **arguments: Any) -> HVQ:
        settings = {"routing": "label", "map": "l2", "codebook_update": "image", **arguments}
        model = HVQ(
            FakeEncoder((14, 14), (2, 3, 4, 7)),
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


# --- parity ----------------------------------------------------------------------------------


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
    targets, reconstructed = model.reconstruct(torch.zeros(4, 3, 224, 224), category=labels)
    assert torch.equal(targets[0], aligned)
    expected = reference["eval.feature_rec"]
    torch.testing.assert_close(reconstructed[0], expected, rtol=0.0, atol=1e-4)
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


# --- checkpoints -----------------------------------------------------------------------------


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
            assert bool(after[key].all())  # the codes are there: no tokens are sampled
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
