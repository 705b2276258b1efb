"""Random memories: which images they hold, and the probability of what they miss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = [
    "IMAGE_TOLERANCE",
    "check_ratio",
    "interval_weights",
    "memory_size",
    "on_device",
    "population_of",
    "rank_weights",
    "sample_subsets",
    "sum_type",
    "survival",
]

# Weight of the farthest ranks that may go to the last one included; distances are at most 2.
IMAGE_TOLERANCE = 1e-9


def check_ratio(ratio: float) -> None:
    """Raise ValueError unless a ratio lies in (0, 1]."""
    if not 0 < ratio <= 1:
        msg = f"ratio must be in (0, 1], got {ratio!r}"
        raise ValueError(msg)


def memory_size(population: int, ratio: float) -> int:
    """Return ceil(ratio * population), computed without binary rounding noise.

    In floats ``0.07 * 100`` is 7.000000000000001; this gives 7, a bare ``ceil`` 8. At the paper's
    ratio of 0.1 the two agree for every population up to at least 100 000.

    Args:
        population: Images to sample from, at least 1.
        ratio: Share of them in (0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """
    check_ratio(ratio)
    if population < 1:
        msg = f"a memory needs at least one image to sample from, got {population}"
        raise ValueError(msg)
    exact = ratio * population
    nearest = round(exact)
    noise = 1e-9 * max(1.0, exact)
    return max(1, nearest if abs(exact - nearest) < noise else math.ceil(exact))


def population_of(count: int, clusters: Tensor | None) -> int:
    """Return how many memories are sampled from: clusters by number, else ``count`` images."""
    return count if clusters is None else int(clusters.max()) + 1


def sample_subsets(
    population: int,
    ratio: float,
    count: int,
    *,
    generator: torch.Generator,
    replacement: bool = True,
    strata: Sequence[Hashable] | None = None,
) -> list[Tensor]:
    """Sample random memories as sets of image indices.

    Args:
        population: Images to sample from.
        ratio: Share of the images a memory holds, in (0, 1].
        count: Number of memories, at least 1.
        generator: CPU generator; strata use it in the order of their names.
        replacement: Whether an image may be sampled several times. The reference does so, except
            on Real-IAD.
        strata: A label per image (Real-IAD: the camera view); each stratum then gives
            ``ceil(ratio * n_s)`` images to every memory.

    Returns:
        ``count`` int64 vectors of indices, in the order sampled.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        docs/method.md, section 2: ``ceil(ratio * N)`` whole images.
    """
    if count < 1:
        msg = f"at least one memory has to be sampled, got {count}"
        raise ValueError(msg)
    if strata is None:
        groups = [torch.arange(population)]
    elif len(strata) == population:
        groups = list(group_indices(strata).values())
    else:
        msg = f"strata name {len(strata)} images, the population has {population}"
        raise ValueError(msg)
    parts = []
    for members in groups:
        size = memory_size(len(members), ratio)
        if replacement:
            picks = torch.randint(len(members), (count, size), generator=generator)
        else:
            orders = [torch.randperm(len(members), generator=generator) for _ in range(count)]
            picks = torch.stack(orders)[:, :size]
        parts.append(members[picks])
    return list(torch.cat(parts, dim=1))


def survival(population: int, size: int, *, replacement: bool) -> Tensor:
    """Return the chance that a random memory holds none of the k nearest images.

    Args:
        population: N.
        size: Images sampled, m; without replacement at most N.
        replacement: Whether an image may be sampled several times.

    Returns:
        ``[N + 1]`` float64 for k = 0..N: ((N - k) / N)^m, or C(N - k, m) / C(N, m).
    """
    remaining = torch.arange(population, -1, -1, dtype=torch.float64)
    if replacement:
        return (remaining / population) ** size
    logs = torch.lgamma(remaining + 1) - torch.lgamma((remaining - size).clamp(min=0) + 1)
    return torch.where(remaining >= size, (logs - logs[0]).exp(), 0.0)


def rank_weights(survivals: Tensor, tolerance: float) -> Tensor:
    """Return the chance that the k-th nearest distance is the smallest one in the memory.

    Args:
        survivals: ``[R, N + 1]`` rows of `survival`.
        tolerance: Weight that may be left out of each row; it goes to the last rank included.

    Returns:
        ``[R, K]`` float64, K <= N the smallest number of ranks within the tolerance. Rows sum to 1.
    """
    left_out = survivals.amax(0)[1:] < tolerance
    ranks = int(left_out.int().argmax()) + 1 if bool(left_out.any()) else len(left_out)
    weights = survivals[:, :ranks] - survivals[:, 1 : ranks + 1]
    weights[:, -1] += survivals[:, ranks]
    return weights


def interval_weights(population: int, interval: Sequence[float]) -> Tensor:
    """Return the weights of an ordinary mean over an interval of the sorted distances.

    Args:
        population: Images that distances go to, n >= 1.
        interval: Ascending shares (lower, upper) in [0, 1]: the distances from int(lower * n)
            up to int(upper * n), and at least one, count.

    Returns:
        ``[K]`` float64 for the nearest, second nearest, ...; they sum to 1.

    Source:
        MuSc averages the lowest 30 %: (0, 0.3).
    """
    lower = min(int(interval[0] * population), population - 1)
    upper = max(int(interval[1] * population), lower + 1)
    weights = torch.zeros(upper, dtype=torch.float64)
    weights[lower:] = 1 / (upper - lower)
    return weights


def sum_type(device: torch.device) -> torch.dtype:
    """Return the type of weighted sums: float64, but float32 on MPS, which lacks float64.

    That changes a score by about 1e-7 of itself.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def on_device(weights: Tensor, device: torch.device) -> Tensor:
    """Return weights on the device that sums with them, in the type of the sums."""
    return weights.to(sum_type(device)).to(device)
