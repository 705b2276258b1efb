from __future__ import annotations

import math
from itertools import combinations, product

import pytest
import torch

from meds_plugin.memory.subsampling import (
    memory_size,
    on_device,
    rank_weights,
    sample_subsets,
    sum_type,
    survival,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_memory_size_at_the_papers_ratio_is_the_plain_ceiling() -> None:
    assert all(memory_size(n, 0.1) == math.ceil(0.1 * n) for n in range(1, 5001))


@pytest.mark.parametrize(
    ("population", "ratio", "size"),
    [(100, 0.07, 7), (25, 0.28, 7), (101, 0.07, 8), (1, 0.1, 1), (7, 1.0, 7), (5, 1e-12, 1)],
)
def test_memory_size_ignores_binary_noise(population: int, ratio: float, size: int) -> None:
    assert memory_size(population, ratio) == size


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_memory_size_refuses_other_ratios(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must be in"):
        memory_size(10, ratio)


def test_samples_depend_on_the_generator_only() -> None:
    first = torch.stack(sample_subsets(30, 0.2, 5, generator=seeded(3)))
    torch.manual_seed(9)
    assert torch.equal(torch.stack(sample_subsets(30, 0.2, 5, generator=seeded(3))), first)
    assert not torch.equal(torch.stack(sample_subsets(30, 0.2, 5, generator=seeded(4))), first)


@pytest.mark.parametrize("replacement", [True, False])
def test_samples_are_uniform(replacement: bool) -> None:
    subsets = sample_subsets(10, 0.5, 4000, generator=seeded(), replacement=replacement)
    images = torch.stack(subsets)
    assert images.shape == (4000, 5)
    repeated = any(len(row.unique()) < 5 for row in images)
    assert repeated is replacement
    assert (images.flatten().bincount(minlength=10) - 2000).abs().max() < 5 * math.sqrt(2000)


@pytest.mark.parametrize("replacement", [True, False])
def test_each_stratum_gives_its_share(replacement: bool) -> None:
    strata = ["a"] * 11 + ["b"] * 3 + ["a"] * 10
    subsets = sample_subsets(
        24, 0.1, 50, generator=seeded(), replacement=replacement, strata=strata
    )
    for subset in subsets:
        assert sorted(strata[int(i)] for i in subset) == ["a", "a", "a", "b"]


def test_sample_subsets_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least one memory"):
        sample_subsets(5, 0.1, 0, generator=seeded())
    with pytest.raises(ValueError, match="strata name 2 images"):
        sample_subsets(5, 0.1, 1, generator=seeded(), strata=["a", "b"])
    with pytest.raises(ValueError, match="at least one image"):
        sample_subsets(0, 0.1, 1, generator=seeded())


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("replacement", [True, False])
def test_survival_counts_memories(size: int, replacement: bool) -> None:
    images = range(5)
    memories = list(product(images, repeat=size) if replacement else combinations(images, size))
    counted = [sum(min(m) >= k for m in memories) / len(memories) for k in range(6)]
    torch.testing.assert_close(
        survival(5, size, replacement=replacement), torch.tensor(counted, dtype=torch.float64)
    )


def test_weights_without_replacement_are_the_hypergeometric_ones() -> None:
    population, size = 1000, 100
    weights = rank_weights(survival(population, size, replacement=False)[None], 0.0)[0]
    exact = [
        math.comb(population - k, size - 1) / math.comb(population, size)
        for k in range(1, population + 1)
    ]
    torch.testing.assert_close(
        weights[: len(exact)],
        torch.tensor(exact[: len(weights)], dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )


def test_rank_weights_hold_only_the_ranks_that_matter() -> None:
    rows = torch.stack([survival(1000, size, replacement=True) for size in (100, 300)])
    weights = rank_weights(rows, 1e-9)
    ranks = weights.shape[1]
    assert ranks < 200
    assert rows[0, ranks] < 1e-9 <= rows[0, ranks - 1]
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))
    assert rank_weights(rows[:, :1001], 0.0).shape == (2, 1000)


def test_sums_have_the_widest_type_of_the_device() -> None:
    assert sum_type(torch.device("cpu")) == sum_type(torch.device("cuda")) == torch.float64
    assert sum_type(torch.device("mps")) == torch.float32  # none wider exists there
    weights = torch.rand(2, 3)
    assert torch.equal(on_device(weights, torch.device("cpu")), weights.double())
