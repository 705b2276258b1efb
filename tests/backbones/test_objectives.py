from __future__ import annotations

import torch

from backbones.mosaics import CLEAN, DOUBTFUL, MARKED, MIXED, Mosaics
from backbones.objectives import HeldOut, _find, detection, patch_features, recognition
from meds_plugin.encoder import build_encoder


def test_features_are_those_that_the_memory_stores() -> None:
    encoder = build_encoder(model="embedded", image_size=128, layers=[5], weights="random", seed=1)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        own = patch_features(encoder.model, images)
    torch.testing.assert_close(own, encoder.features(images))


def test_smaller_pictures_stand_at_a_corner_of_the_grid() -> None:
    encoder = build_encoder(model="embedded", image_size=128, layers=[5], weights="random", seed=1)
    network = encoder.model.requires_grad_(requires_grad=False)
    images = torch.randn(2, 3, 32, 32)
    there = patch_features(network, images, corner=(3, 5))
    positions = network.get_parameter("pos_embed")
    origin = [row * 16 + column for row in range(4) for column in range(4)]
    place = [(row + 3) * 16 + column + 5 for row in range(4) for column in range(4)]
    before = patch_features(network, images)
    positions[:, origin] = positions[:, place].clone()
    torch.testing.assert_close(patch_features(network, images), there)
    assert not torch.allclose(before, there, atol=1e-3)


def test_the_held_out_score_is_that_of_an_encoder() -> None:
    held_out = HeldOut(0, canvas=64, textures=2, views=8)
    scores = []
    for weights in (None, "random"):
        encoder = build_encoder(model="embedded", image_size=128, layers=[5], weights=weights)
        scores.append(held_out.score(encoder.model))
        assert held_out.score(encoder.model) == scores[-1]
    assert all(trained > random + 0.05 for trained, random in zip(*scores, strict=True))


def test_held_out_views_are_half_with_marks_and_stored_ones_have_none() -> None:
    held_out = HeldOut(0, canvas=64, textures=4, views=16)
    assert bool((held_out.stored.marks == CLEAN).all())
    share = (held_out.judged.marks == MARKED).any(dim=1).float().mean()
    assert 0.3 < float(share) < 0.7
    assert len(held_out.stored.marks) == len(held_out.judged.marks) == 64


def test_a_mark_is_found_by_the_nearest_stored_patch() -> None:
    clean, mark, other = torch.eye(3)
    memory = torch.stack([clean, other])
    features = torch.stack(
        [
            torch.stack(each)
            for each in ((clean, other), (mark, clean), (other, mark), (clean, mark))
        ]
    )
    marks = torch.tensor([[CLEAN, CLEAN], [MARKED, CLEAN], [CLEAN, DOUBTFUL], [DOUBTFUL, MARKED]])
    assert _find(features, marks, memory) == (1.0, 1.0)
    assert _find(features, marks, mark[None])[1] == 0.0  # clean patches are far now, marks are near
    assert _find(features[:1], marks[:1], memory) == (None, None)


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


def test_a_batch_without_patches_of_one_texture_has_no_loss_of_recognition() -> None:
    features = torch.randn(1, 3, 4, requires_grad=True)
    loss = recognition(features, torch.nn.Identity(), _labelled([[MIXED] * 3], [[CLEAN] * 3]))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not bool(features.grad.any())


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
