from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from backbones.mosaics import CLEAN, MARKED, MIXED, draw_mosaics
from backbones.procedural import texture_bank
from meds_plugin.rng import torch_generator

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="module")
def bank() -> Tensor:
    return texture_bank(6, 48, seed=3)


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
