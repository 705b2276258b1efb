"""Embeddings sum up what images show."""

from __future__ import annotations

import torch

from meds_plugin.memory.embeddings import embed
from meds_plugin.memory.patch_vectors import PatchVectors


def test_embed_means_and_peaks() -> None:
    features = torch.rand(4, 200, 6, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(4, 200)
    maps[2, [7, 90]] = 1.0  # one per cent of the patches
    found = embed(PatchVectors.of(features), maps)
    unit = torch.nn.functional.normalize(features, dim=-1)
    mean = torch.nn.functional.normalize(unit.mean(1), dim=-1)
    torch.testing.assert_close(found.image.float(), mean, atol=1e-3, rtol=0)
    peak = torch.nn.functional.normalize(unit[2, [7, 90]].mean(0), dim=0)
    torch.testing.assert_close(found.peak[2].float(), peak, atol=1e-3, rtol=0)


def test_embed_takes_some_images() -> None:
    features = torch.rand(5, 9, 3, generator=torch.Generator().manual_seed(1))
    maps = torch.rand(5, 9, generator=torch.Generator().manual_seed(2))
    vectors = PatchVectors.of(features)
    some, every = embed(vectors, maps, torch.tensor([3, 1])), embed(vectors, maps)
    assert torch.equal(some.image, every.image[[3, 1]])
    assert torch.equal(some.peak, every.peak[[3, 1]])
