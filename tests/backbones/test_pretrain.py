from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from backbones.mosaics import CLEAN, DOUBTFUL, MARKED, MIXED, Mosaics, draw_mosaics
from backbones.objectives import HeldOut, detection, patch_features, recognition
from backbones.pretrain import PretrainSettings, pretrain, write_weights
from backbones.procedural import texture_bank
from meds_plugin.conf_dir import conf_dir
from meds_plugin.encoder import EMBEDDED_WEIGHTS, build_encoder
from meds_plugin.errors import UserError
from meds_plugin.rng import torch_generator

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SHORT = PretrainSettings(
    steps=40,
    textures=8,
    canvas=64,
    sizes=(32,),
    tokens=256,
    lr=1e-3,
    warmup=5,
    check_every=0,
)


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Tensor], list[float]]:
    return pretrain(SHORT)


@pytest.fixture(scope="module")
def bank() -> Tensor:
    return texture_bank(6, 48, seed=3)


def test_one_seed_gives_the_same_weights_and_another_others(
    trained: tuple[dict[str, Tensor], list[float]],
) -> None:
    few = replace(SHORT, steps=4)
    first, again, other = (pretrain(s)[0] for s in (few, few, replace(few, seed=1)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert any(not torch.equal(first[name], trained[0][name]) for name in first)


def test_the_loss_falls(trained: tuple[dict[str, Tensor], list[float]]) -> None:
    losses = trained[1]
    assert len(losses) == SHORT.steps
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_weights_are_written_whole_and_load_as_the_embedded_encoder(
    trained: tuple[dict[str, Tensor], list[float]], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "embedded.safetensors"
    checksum = write_weights(path, trained[0], torch.float16)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.stat().st_size < 8e6
    assert len(checksum) == 64
    state = load_file(path)
    assert all(v.dtype == torch.float16 for v in state.values())
    for size in (128, 64):
        encoder = build_encoder(model="embedded", image_size=size, layers=[2, 5], weights=str(path))
        features = encoder.features(torch.zeros(1, 3, size, size))
        assert features.dtype == torch.float32
        assert bool(torch.isfinite(features).all())


def test_the_card_is_that_of_the_shipped_weights() -> None:
    card = EMBEDDED_WEIGHTS.with_name("CARD.md").read_text()
    assert hashlib.sha256(EMBEDDED_WEIGHTS.read_bytes()).hexdigest() in card


def test_features_are_those_that_the_memory_stores() -> None:
    encoder = build_encoder(model="embedded", image_size=128, layers=[5], weights="random", seed=1)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        own = patch_features(encoder.model, images)
    torch.testing.assert_close(own, encoder.features(images))


def test_textures_depend_on_seed_purpose_and_number_only(bank: Tensor) -> None:
    assert torch.equal(texture_bank(3, 48, seed=3), bank[:3])
    assert not torch.equal(texture_bank(1, 48, seed=4), bank[:1])
    assert not torch.equal(texture_bank(1, 48, seed=3, purpose="held-out"), bank[:1])
    assert len({bytes(each.numpy().tobytes()) for each in bank}) == len(bank)
    assert bool((bank.float().std(dim=(1, 2, 3)) > 0).all())


def test_mosaics_depend_on_their_generator_only(bank: Tensor) -> None:
    first, again, other = (
        draw_mosaics(bank, torch_generator(0, "test", key), mosaics=3, size=32)
        for key in ("a", "a", "b")
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)


def test_views_of_an_aligned_mosaic_differ_by_a_shift_only(bank: Tensor) -> None:
    draws = [
        draw_mosaics(
            bank, torch_generator(0, "t"), mosaics=6, size=64, single=1.0, marked=0.0, aligned=share
        )
        for share in (0.0, 1.0)
    ]
    free, aligned = (best_correlation(each.images) for each in draws)
    assert aligned > free + 0.2


def best_correlation(images: Tensor) -> float:
    """Return the correlation of two views of a mosaic at the best shift, averaged over mosaics."""
    grey = images.mean(dim=1)
    best = []
    for first, second in zip(grey[::2], grey[1::2], strict=True):
        inner = first[4:-4, 4:-4].flatten()
        shifted = [second[y : y + 56, x : x + 56].flatten() for y in range(9) for x in range(9)]
        best.append(max(float(torch.corrcoef(torch.stack([inner, s]))[0, 1]) for s in shifted))
    return sum(best) / len(best)


def test_the_held_out_score_is_that_of_an_encoder() -> None:
    encoder = build_encoder(model="embedded", image_size=128, layers=[5], weights="random")
    held_out = HeldOut(0, canvas=64, textures=2)
    image, patch = held_out.score(encoder.model)
    assert 0 <= image <= 1
    assert 0.5 < patch <= 1
    assert held_out.score(encoder.model) == (image, patch)


def test_patches_are_labelled_with_the_texture_they_show() -> None:
    bank = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    bank += (torch.arange(3) * 100 + 20).view(3, 1, 1, 1).to(torch.uint8)  # dark, middle, light
    batch = draw_mosaics(bank, torch_generator(0, "test"), mosaics=8, size=64, marked=0.0)
    assert batch.images.shape == (16, 3, 64, 64)
    assert batch.textures.shape == (16, 64)
    brightness = torch.nn.functional.avg_pool2d(batch.images.mean(dim=1), 8).flatten(1)
    means = [float(brightness[batch.textures == number].mean()) for number in range(3)]
    assert means[0] < means[1] - 0.5 < means[2] - 1.0
    assert bool((batch.textures == MIXED).any())  # where textures meet
    assert bool((batch.marks == CLEAN).all())


def test_a_mosaic_of_one_texture_has_one_label(bank: Tensor) -> None:
    batch = draw_mosaics(
        bank, torch_generator(0, "test"), mosaics=4, size=64, single=1.0, marked=0.0
    )
    assert all(len(batch.textures[batch.mosaic == m].unique()) == 1 for m in range(4))


def test_marks_are_labelled_where_they_can_be_seen(bank: Tensor) -> None:
    draws = [
        draw_mosaics(bank, torch_generator(0, "t"), mosaics=8, size=64, single=1.0, marked=share)
        for share in (0.0, 1.0)
    ]
    assert not bool((draws[0].marks == MARKED).any())
    marked = draws[1].marks == MARKED
    assert 0.01 < float(marked.float().mean()) < 0.5
    assert bool((draws[1].textures[marked] == MIXED).all())


def test_recognition_counts_patches_of_one_texture_only() -> None:
    head = torch.nn.Identity()
    features = 20 * torch.eye(3)[None]  # three patches that look like textures 0, 1, 2
    textures = [[0, 1, 2], [0, MIXED, 2], [0, 2, 2]]
    right, mixed, wrong = (
        float(recognition(features, head, _labelled([each], [[CLEAN] * 3]))) for each in textures
    )
    assert right < 1e-3
    assert mixed < 1e-3
    assert wrong > 5


def test_the_shipped_configuration_is_the_settings() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("pretrain")
    given = OmegaConf.to_container(config.pretrain)
    assert isinstance(given, dict)
    assert PretrainSettings(**{str(k): v for k, v in given.items()}) == PretrainSettings()


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"sizes": (60,)}, {"sizes": ()}, {"marked": 2.0}, {"detection": -1.0}]
)
def test_wrong_settings_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(SHORT, **wrong)  # type: ignore[arg-type]


def _labelled(textures: list[list[int]], marks: list[list[int]]) -> Mosaics:
    mosaic = torch.zeros(len(marks), dtype=torch.long)
    return Mosaics(torch.empty(0), torch.tensor(textures), torch.tensor(marks), mosaic)


def _two_views(marks: list[list[int]]) -> Mosaics:
    return _labelled([[0] * len(each) for each in marks], marks)


def test_detection_wants_marked_patches_far_from_all_clean_ones() -> None:
    clean, mark = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    batch = _two_views([[CLEAN, CLEAN, MARKED], [CLEAN] * 3])
    told_apart = torch.stack([torch.stack([clean, clean, mark]), torch.stack([clean] * 3)])
    all_alike = clean.expand(2, 3, 2)
    settings = {"threshold": 0.8, "sharpness": 15.0}
    good, bad = (float(detection(f, batch, **settings)) for f in (told_apart, all_alike))
    assert good < 0.1
    assert bad > 3  # softplus(15 * (1 - 0.8)) for the marked patch


def test_detection_does_not_compare_with_marked_or_doubtful_patches() -> None:
    clean, mark = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    features = torch.stack([torch.stack([clean, mark]), torch.stack([clean, mark])])
    both_marked = detection(
        features, _two_views([[CLEAN, MARKED], [CLEAN, MARKED]]), threshold=0.8, sharpness=15.0
    )
    assert float(both_marked) < 0.1  # each looks like the other's mark, which is no reference
    without = _two_views([[CLEAN, DOUBTFUL], [CLEAN, DOUBTFUL]])
    assert float(detection(features, without, threshold=0.8, sharpness=15.0)) < 0.1
