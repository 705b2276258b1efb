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
from meds_plugin.detector import DetectorView, check_detector, check_maps
from meds_plugin.encoder import build_encoder
from meds_plugin.errors import UserError
from meds_plugin.frozen_encoder import FrozenEncoder
from meds_plugin.optim import OptimizerSettings, stable_adamw

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]

SMALL = {"embed_dim": 16, "codes": 24, "hidden": 32, "heads": 4, "depth": 2}


class Given(FrozenEncoder):
    """Stands for an encoder of any kind: its maps are fixed functions of the image."""

    def __init__(self, grid: tuple[int, int] = (4, 6), channels: tuple[int, ...] = (3, 5)) -> None:
        super().__init__(nn.Linear(2, 2), (8 * grid[0], 8 * grid[1]), range(len(channels)))
        self.grid = grid
        self.channels = channels
        self.train(mode=False)

    def layer_maps(self, images: Tensor) -> list[Tensor]:
        pooled = F.avg_pool2d(images, 8)
        return [
            torch.stack([torch.sin((k + level) * pooled).sum(1) for k in range(1, count + 1)], dim=1)
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
