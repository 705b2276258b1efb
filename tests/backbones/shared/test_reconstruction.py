"""What all reconstruction detectors share: grouping, checkpoints, and the plugin's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from backbones.dinomaly import Dinomaly
from backbones.inp_former import INPFormer
from meds_plugin.detectors.outputs import check_finite, check_maps
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.detectors.view import DetectorView
from meds_plugin.encoders.build import build_encoder
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW
from meds_plugin.utils.errors import UserError
from tests.backbones.small import loader_of, noisy_images, on_stages, small, widen
from tests.toys import quiet_trainer, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from backbones.shared.reconstruction import ReconstructionDetector

    Kind = Callable[..., ReconstructionDetector]

    Make = Callable[..., Any]

KINDS = pytest.mark.parametrize("kind", [Dinomaly, INPFormer])
ENCODERS = pytest.mark.parametrize("make", [small, on_stages])


# --- grouping --------------------------------------------------------------------------------


@KINDS
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
    kind: Kind,
    layers: tuple[int, ...],
    arguments: dict[str, Any],
    groups: list[list[int]],
    decoder_groups: list[list[int]],
) -> None:
    model = small(kind, image_size=(28, 70), layers=layers, **arguments).eval()
    widen(model)
    images = torch.randn(2, 3, 28, 70)
    outputs: list[Tensor] = []
    for block in model.decoder:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.insert(0, output))
    encoded = model.encode(images)
    both = model.encode_and_features(images)
    assert torch.equal(both[0], encoded)
    assert torch.equal(both[1], model.features(images))
    assert encoded.shape[2] == 32 * len(groups)
    assert not encoded.requires_grad

    tokens = torch.stack(model.encoder.tokens(images))
    torch.testing.assert_close(model.fuse(encoded)[:, -10:], tokens.mean(0)[:, 5:])
    targets, reconstructed = model.reconstruct(images)
    maps = []
    for index, (group, own) in enumerate(zip(groups, decoder_groups, strict=True)):
        target = tokens[group].mean(0)[:, 5:]
        out = torch.stack([outputs[i] for i in own]).mean(0)[:, -10:]
        torch.testing.assert_close(targets[index], target.mT.reshape(2, 32, 2, 5))
        torch.testing.assert_close(reconstructed[index], out.mT.reshape(2, 32, 2, 5))
        maps.append(1.0 - F.cosine_similarity(targets[index], reconstructed[index], dim=1))
    found = model(images)
    check_maps(found, batch=2, name=type(model).__name__)
    check_finite(found, name=type(model).__name__)
    assert found.shape == (2, 2, 5)
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


@KINDS
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"groups": [[0, 1], [2]]}, "groups"),
        ({"groups": [[0, 1], [1, 2, 3]]}, "groups"),
        ({"groups": [[0, 1, 2, 3], []]}, "groups"),
        ({"decoder_depth": 1}, "decoder_depth=1"),
        ({"heads": 5}, "heads=5 must divide the decoder's width 32"),
        ({"heads": 0}, "heads=0"),
        ({"width": 30}, "heads=4 must divide the decoder's width 30"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"width": 16.0}, "width must be a whole number of at least 1, got 16.0"),
        ({"width": True}, "width must be .* got True"),
    ],
)
def test_wrong_arguments_are_named(kind: Kind, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}") as caught:
        small(kind, **arguments)
    assert "\n" not in str(caught.value)


@KINDS
def test_a_decoder_may_be_narrower_than_a_transformer(kind: Kind) -> None:
    plain, model = small(kind).eval(), small(kind, width=16).eval()
    images = torch.randn(2, 3, 56, 56)
    encoded = model.encode(images)
    assert torch.equal(encoded, plain.encode(images))
    assert not len(plain.embed)
    assert not len(plain.output)
    torch.testing.assert_close(model.fuse(encoded), model.embed[0](plain.fuse(encoded)))
    assert model.fuse(encoded).shape[-1] == 16
    assert [each.shape[-1] for each in model.reconstructions(encoded)] == [32, 32]
    assert model(images).shape == (2, 4, 4)


# --- on a pyramid ----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("arguments", "groups", "decoder_groups", "linear"),
    [
        ({}, [[0, 1, 2]], [[0, 1, 2]], (0, 0)),
        ({"width": 48, "decoder_depth": 2}, [[0, 1, 2]], [[0, 1]], (1, 1)),
        ({"groups": [[0], [1, 2]]}, [[0], [1, 2]], [[0], [1, 2]], (0, 2)),
        ({"groups": [[2, 0], [1]], "width": 64}, [[2, 0], [1]], [[2, 0], [1]], (1, 2)),
    ],
)
def test_a_group_of_a_pyramid_is_its_stages_channels_one_after_another(
    kind: Kind,
    arguments: dict[str, Any],
    groups: list[list[int]],
    decoder_groups: list[list[int]],
    linear: tuple[int, int],
) -> None:
    model = on_stages(kind, image_size=(32, 64), **arguments).eval()
    widen(model)
    assert (len(model.embed), len(model.output)) == linear
    outputs: list[Tensor] = []
    for block in model.decoder:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.insert(0, output))
    images = torch.randn(2, 3, 32, 64)
    encoded = model.encode(images)
    both = model.encode_and_features(images)
    assert torch.equal(both[0], encoded)
    assert torch.equal(both[1], model.features(images))
    assert not encoded.requires_grad

    tokens = model.encoder.tokens(images)
    wanted = [torch.cat([tokens[place] for place in group], dim=2) for group in groups]
    assert encoded.shape == (2, 32, 256)
    assert model.widths == tuple(each.shape[2] for each in wanted)
    assert all(torch.equal(*pair) for pair in zip(model.targets(encoded), wanted, strict=True))
    fused = model.fuse(encoded)
    assert fused.shape == (2, 32, arguments.get("width", 256))
    torch.testing.assert_close(fused, model.embed[0](encoded) if linear[0] else encoded)

    reconstructed = model.reconstructions(encoded)
    for index, members in enumerate(decoder_groups):
        out = torch.stack([outputs[place] for place in members]).mean(0)
        torch.testing.assert_close(
            reconstructed[index], model.output[index](out) if linear[1] else out
        )
    distances = [
        1 - F.cosine_similarity(*pair, -1) for pair in zip(wanted, reconstructed, strict=True)
    ]
    maps = model.anomaly_map(encoded)
    check_maps(maps, batch=2, name=kind.__name__)
    check_finite(maps, name=kind.__name__)
    torch.testing.assert_close(maps, torch.stack(distances).mean(0).view(2, 4, 8))
    targets, on_grid = model.reconstruct(images)
    for flat, laid in zip([*wanted, *reconstructed], [*targets, *on_grid], strict=True):
        assert torch.equal(laid.flatten(2).mT, flat)


@KINDS
def test_gradients_reach_all_that_trains_on_a_pyramid_and_nothing_else(kind: Kind) -> None:
    model = on_stages(kind, groups=[[0], [1, 2]], width=48)
    widen(model)
    encoded = model.encode(torch.randn(2, 3, 64, 64))
    torch.autograd.backward(model.loss(encoded, step=0, total_steps=10))
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if name[:8] != "encoder."}
    assert {"embed.0.weight", "output.0.weight", "output.1.bias"} <= trained
    assert len(model.parameter_groups()[0]["params"]) == len(trained)


@KINDS
def test_weights_of_the_linear_layers_come_from_the_seed_alone(kind: Kind) -> None:
    before = torch.random.get_rng_state()
    given: dict[str, Any] = {"groups": [[0], [1, 2]], "width": 48}
    first, again, other = (on_stages(kind, **given, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for key in ("embed.0.weight", "output.0.weight", "output.1.weight"):
        assert not torch.equal(states[0][key], states[2][key])


@KINDS
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"width": 50}, "heads=8 must divide the decoder's width 50"),
        ({"heads": 3}, "heads=3 must divide the decoder's width 256"),
        ({"groups": [[0], [1]]}, r"groups=\[\[0\], \[1\]\] must hold each of 0..2 once"),
    ],
)
def test_what_does_not_fit_a_pyramid_is_named(
    kind: Kind, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=f"backbone.detector.{told}"):
        on_stages(kind, **arguments)


# --- checkpoints of the authors' code --------------------------------------------------------


def checkpoint(kind: Kind) -> dict[str, Tensor]:
    """Return the weights of another seed as the authors' code would name them."""
    state = small(kind, seed=9).state_dict()
    return {key.replace("encoder.model.", "encoder."): value + 1.0 for key, value in state.items()}


@KINDS
def test_a_checkpoint_sets_all_weights(kind: Kind) -> None:
    model, given = small(kind), checkpoint(kind)
    model.load_reference_state_dict(given)
    state = model.state_dict()
    assert len(state) == len(given)
    for key, value in state.items():
        assert torch.equal(value, given[key.replace("encoder.model.", "encoder.")]), key


@KINDS
def test_a_checkpoint_without_the_encoder_leaves_the_encoder(kind: Kind) -> None:
    model = small(kind)
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    given = {k: v for k, v in checkpoint(kind).items() if not k.startswith("encoder.")}
    model.load_reference_state_dict(given)
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    assert torch.equal(model.get_parameter("decoder.3.norm2.bias"), given["decoder.3.norm2.bias"])


@KINDS
@pytest.mark.parametrize("lost", ["decoder.3.norm1.bias", "encoder.blocks.3.norm1.bias"])
def test_a_checkpoint_that_does_not_fit_changes_nothing(kind: Kind, lost: str) -> None:
    model = small(kind)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong = checkpoint(kind)
    del wrong[lost]
    with pytest.raises(UserError, match=lost.removeprefix("encoder.").replace(".", r"\.")):
        model.load_reference_state_dict(wrong)
    wrong = {**checkpoint(kind), "surplus.0.norm.bias": torch.zeros(3)}
    with pytest.raises(UserError, match=r"1 unexpected \(surplus\.0\.norm\.bias\)"):
        model.load_reference_state_dict(wrong)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


# --- as a detector ---------------------------------------------------------------------------


@KINDS
@ENCODERS
def test_it_offers_everything_a_detector_can(kind: Kind, make: Make) -> None:
    model = make(kind)
    view = DetectorView(model, lambda _: pytest.fail("it has features of its own"))
    check_signatures(view)
    images = torch.randn(2, 3, *model.image_size)
    encoded = view.encode(images)
    model.eval()
    assert torch.equal(view.anomaly_map(encoded), model(images))
    assert view.features(images).shape == ((2, 16, 32) if make is small else (2, 64, 256))
    assert view.normalization == model.encoder.normalization
    trained = {id(p) for p in view.trainable_parameters()}
    frozen = {id(p) for p in model.encoder.parameters()}
    assert not trained & frozen
    assert len(trained) + len(frozen) == len(list(model.parameters()))


@KINDS
def test_the_encoder_stays_frozen(kind: Kind) -> None:
    model = small(kind)
    model.requires_grad_(requires_grad=False)
    assert not any(p.requires_grad for p in model.parameters())
    model.requires_grad_(requires_grad=True)
    model.train()
    assert model.bottleneck[0].training
    assert not model.encoder.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.parameter_groups()[0]["params"])


@KINDS
def test_initial_weights_come_from_the_seed_alone(kind: Kind) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (small(kind, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    weight = first.get_parameter("decoder.3.mlp.fc2.weight")
    assert not torch.equal(weight, other.get_parameter("decoder.3.mlp.fc2.weight"))
    assert not torch.equal(weight, first.get_parameter("decoder.2.mlp.fc2.weight"))
    assert weight.abs().max() <= 0.03


@KINDS
@ENCODERS
def test_it_learns(kind: Kind, make: Make) -> None:
    model = make(kind)
    encoded = model.encode(torch.randn(4, 3, *model.image_size))
    optimizer = StableAdamW(model.parameter_groups(), OptimizerSettings())
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = model.loss(encoded, step=step, total_steps=20)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@KINDS
def test_the_map_is_higher_where_an_image_differs(kind: Kind) -> None:
    images = noisy_images(9, size=64, defective=(8,))
    encoder = build_encoder(model="tf_efficientnet_lite0", image_size=64, layers=(1, 2))
    model = wrap(kind(encoder), method="plain", finetune_steps=50)
    quiet_trainer(50).fit(model, loader_of(images[:8]))
    with torch.no_grad():
        maps = model.eval()(images)
    square = torch.zeros(8, 8, dtype=torch.bool)
    square[2:4, 2:4] = True
    assert maps[8][square].min() > 1.5 * maps[8][~square].mean()
    assert maps[8][square].min() > maps[:8].max()


@KINDS
@ENCODERS
def test_bfloat16_and_half_precision_inputs_stay_close(kind: Kind, make: Make) -> None:
    model = make(kind).eval()
    widen(model)
    encoded = model.encode(torch.randn(2, 3, *model.image_size))
    expected = model.anomaly_map(encoded)
    torch.testing.assert_close(model.anomaly_map(encoded.half()), expected, rtol=0.0, atol=2e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model.anomaly_map(encoded)
        loss = model.loss(encoded, step=500, total_steps=1000)
    assert maps.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0.0, atol=0.03)
    torch.autograd.backward(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@KINDS
@ENCODERS
def test_it_compiles_without_a_graph_break(kind: Kind, make: Make) -> None:
    model = make(kind).eval()
    encoded = model.encode(torch.randn(2, 3, *model.image_size))
    expected = model.loss(encoded, step=500, total_steps=1000)
    compiled: Any = torch.compile(model.loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(encoded, step=500, total_steps=1000), expected)
