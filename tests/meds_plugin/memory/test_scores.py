from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from meds_plugin.memory import (
    bootstrap_scores,
    expected_scores,
    gap_curve,
    sample_subsets,
    subsampling,
)
from meds_plugin.memory.pairwise import strip_width
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.conftest import Arrays

ONE_ROUNDING_STEP = 1.1e-5


def distances(features: Tensor, queries: Tensor | None = None) -> Tensor:
    """Return ``[N, Q, P]`` nearest distances, an image to itself 0, by brute force."""
    stored = features.double() / features.double().norm(dim=-1, keepdim=True)
    asked = stored
    if queries is not None:
        asked = queries.double() / queries.double().norm(dim=-1, keepdim=True)
    return (1 - torch.einsum("qpd,nzd->nqpz", asked, stored)).amin(3).clamp(min=0)


def mean_over(table: Tensor, memories: Iterable[Sequence[int]]) -> Tensor:
    """Return the mean over memories of the smallest of ``[N, ...]`` distances they hold."""
    return torch.stack([table[list(memory)].amin(0) for memory in memories]).mean(0).float()


def choices(images: Sequence[int], size: int, replacement: bool) -> list[tuple[int, ...]]:
    return list(product(images, repeat=size) if replacement else combinations(images, size))


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_bootstrap_equals_the_reference(golden: Callable[[str], Arrays], name: str) -> None:
    arrays = golden("memory_scores")
    features = torch.from_numpy(arrays[f"{name}.features_raw"])
    subsets = [torch.from_numpy(row) for row in arrays[f"{name}.indices"]]
    for subset, expected in zip(subsets, arrays[f"{name}.per_memory"], strict=True):
        found = bootstrap_scores(features, [subset])
        assert_near(found, torch.from_numpy(expected), ONE_ROUNDING_STEP)
    mean = bootstrap_scores(features, subsets)
    assert_near(mean, torch.from_numpy(arrays[f"{name}.mean"]), 5e-6)
    assert_near(bootstrap_scores(features, subsets, features.clone()), mean, 5e-6)
    assert_near(
        image_score(mean[..., None]), torch.from_numpy(arrays[f"{name}.image_top1pct"]), 5e-6
    )


def test_bootstrap_equals_the_reference_with_views(golden: Callable[[str], Arrays]) -> None:
    arrays = golden("memory_scores_realiad")
    features = torch.from_numpy(arrays["features_raw"])
    subsets = [torch.from_numpy(row) for row in arrays["indices_all"]]
    for subset, expected in zip(subsets[:6], arrays["per_memory_first6"], strict=True):
        found = bootstrap_scores(features, [subset])
        assert_near(found, torch.from_numpy(expected), ONE_ROUNDING_STEP)
    mean = torch.from_numpy(arrays["mean_all"])
    assert_near(bootstrap_scores(features, subsets), mean, 5e-6)
    # The expectation over all such memories, of which these are a hundred.
    views = arrays["view_of_image"].tolist()
    stratified = expected_scores(features, 0.1, replacement=False, strata=views)
    assert (mean - stratified).mean().abs() < 2e-4


def test_bootstrap_without_rounding_is_the_plain_mean() -> None:
    features, queries = torch.randn(9, 4, 6), torch.randn(3, 4, 6)
    memories = [[0, 4, 4], [8], [1, 2, 3, 4, 5, 6, 7]]
    subsets = [torch.tensor(memory) for memory in memories]
    exact = mean_over(distances(features), memories)
    assert_near(bootstrap_scores(features, subsets, decimals=None), exact)
    asked = mean_over(distances(features, queries), memories)
    assert_near(bootstrap_scores(features, subsets, queries, decimals=None), asked)
    rounded = bootstrap_scores(features, subsets, decimals=2)
    assert 1e-4 < (rounded - exact).abs().max() <= 0.005 + 1e-6


def test_bootstrap_refuses_wrong_memories() -> None:
    features = torch.randn(4, 3, 5)
    with pytest.raises(ValueError, match="there must be a memory"):
        bootstrap_scores(features, [])
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap_scores(features, [torch.tensor([], dtype=torch.long)])
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=r"outside 0\.\.3"):
            bootstrap_scores(features, [torch.tensor([0, wrong])])


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("replacement", [True, False])
def test_expected_equals_the_mean_over_all_memories(ratio: float, replacement: bool) -> None:
    features, queries = torch.randn(5, 3, 4), torch.randn(2, 3, 4)
    memories = choices(range(5), round(5 * ratio), replacement)
    found = expected_scores(features, ratio, replacement=replacement)
    assert_near(found, mean_over(distances(features), memories))
    asked = expected_scores(features, ratio, queries=queries, replacement=replacement)
    assert_near(asked, mean_over(distances(features, queries), memories))


@pytest.mark.parametrize("ratio", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("replacement", [True, False])
def test_leaving_out_equals_memories_of_the_others(ratio: float, replacement: bool) -> None:
    features = torch.randn(5, 3, 4)
    size = round(5 * ratio) if replacement else min(4, round(5 * ratio))
    found = expected_scores(features, ratio, replacement=replacement, leave_self_out=True)
    for image in range(5):
        others = [i for i in range(5) if i != image]
        memories = choices(others, size, replacement)
        assert_near(found[image], mean_over(distances(features)[:, image], memories))


def test_own_presence_only_rescales() -> None:
    features = torch.randn(12, 5, 8)
    size = 3
    factor = (11 / 12) ** size
    with_self = expected_scores(features, 0.25)
    assert_near(with_self, factor * expected_scores(features, 0.25, leave_self_out=True))


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_strata_equal_the_mean_over_all_joint_memories(
    replacement: bool, leave_self_out: bool
) -> None:
    strata = ["b", "a", "a", "c", "a", "b"]  # sizes at 0.5: a 2, b 1, c 1
    sizes = {"a": 2, "b": 1, "c": 1}
    features = torch.randn(6, 3, 4)
    found = expected_scores(
        features, 0.5, replacement=replacement, strata=strata, leave_self_out=leave_self_out
    )
    for image in range(6):
        samples = []
        for name, size in sizes.items():
            members = [i for i in range(6) if strata[i] == name]
            if leave_self_out and image in members:
                members.remove(image)
            sampled = size if replacement else min(size, len(members))
            samples.append(choices(members, sampled, replacement) if members else [()])
        memories = [sum(parts, ()) for parts in product(*samples)]
        assert_near(found[image], mean_over(distances(features)[:, image], memories))


def test_one_stratum_is_no_stratum() -> None:
    features = torch.randn(7, 3, 4)
    for replacement in (True, False):
        found = expected_scores(features, 0.3, replacement=replacement, strata=[1] * 7)
        assert_near(found, expected_scores(features, 0.3, replacement=replacement))


@pytest.mark.parametrize("replacement", [True, False])
def test_expected_is_what_sampled_memories_tend_to(replacement: bool) -> None:
    features = torch.randn(20, 6, 8)
    generator = torch.Generator().manual_seed(0)
    subsets = sample_subsets(20, 0.15, 3000, generator=generator, replacement=replacement)
    each = torch.stack([distances(features)[s].amin(0) for s in subsets])
    error = bootstrap_scores(features, subsets, decimals=None) - expected_scores(
        features, 0.15, replacement=replacement
    )
    in_standard_errors = error / (each.std(0) / len(subsets) ** 0.5)
    assert in_standard_errors.abs().max() < 5
    assert 0.3 < in_standard_errors.std() < 2


@pytest.mark.parametrize("budget_columns", [24, 23, 21, 0])
def test_results_do_not_depend_on_the_budget(budget_columns: int) -> None:
    features = torch.randn(24, 5, 6)
    row_bytes = 24 * 5 * 4
    budget = budget_columns * row_bytes
    # At the ratio 0.75 seventeen ranks carry the weight; seventeen memories take as much room.
    assert strip_width(24, row_bytes, 17, budget) == {24: 24, 23: 3, 21: 2, 0: 0}[budget_columns]
    for leave_self_out in (True, False):
        found = expected_scores(features, 0.75, memory_budget=budget, leave_self_out=leave_self_out)
        assert_near(found, expected_scores(features, 0.75, leave_self_out=leave_self_out))
    subsets = sample_subsets(24, 0.2, 17, generator=torch.Generator().manual_seed(0))
    found = bootstrap_scores(features, subsets, memory_budget=budget, decimals=None)
    assert_near(found, mean_over(distances(features), [s.tolist() for s in subsets]))


def test_gap_curve_holds_every_ratio() -> None:
    features, queries = torch.randn(15, 4, 6), torch.randn(3, 4, 6)
    ratios = [0.05, 0.1, 0.4, 1.0]
    options: list[dict[str, Any]] = [
        {},
        {"queries": queries, "replacement": False},
        {"unit": "patch"},
        {"strata": [i % 2 for i in range(15)], "leave_self_out": True},
    ]
    for option in options:
        curve = gap_curve(features, ratios, **option)
        assert curve.shape == (4, 3 if "queries" in option else 15, 4)
        for ratio, row in zip(ratios, curve, strict=True):
            assert_near(row, expected_scores(features, ratio, **option))


def test_gap_between_rare_and_frequent_patches_peaks_at_a_moderate_ratio() -> None:
    features = torch.nn.functional.one_hot(torch.arange(16) % 4, 8).float()
    features = features.repeat(40, 1, 1) + 0.1 * torch.randn(40, 16, 8)
    rare = torch.arange(0, 40, 10)
    features[rare, 0] = torch.eye(8)[6] + 0.1 * torch.randn(4, 8)
    curve = gap_curve(features, [0.01, 0.1, 0.3, 1.0])
    normal = torch.ones(40, 16, dtype=torch.bool)
    normal[rare, 0] = False
    gap = curve[:, rare, 0].mean(1) - torch.stack([row[normal].mean() for row in curve])
    assert (gap > 0).all()
    assert gap[1] > gap[3]


@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("leave_self_out", [True, False])
def test_patches_weigh_by_rank(ratio: float, leave_self_out: bool) -> None:
    features = torch.randn(6, 5, 4)
    unit = torch.nn.functional.normalize(features.double(), dim=-1).flatten(0, 1)
    found = expected_scores(features, ratio, unit="patch", leave_self_out=leave_self_out)
    for index, patch in enumerate(unit):
        own = torch.arange(30) // 5 == index // 5
        bank = unit[~own] if leave_self_out else unit
        ordered = (1 - bank @ patch).clamp(min=0).sort().values
        weights = ratio * (1 - ratio) ** torch.arange(len(ordered))
        weights[-1] += (1 - ratio) ** len(ordered)  # an empty memory
        assert_near(found.flatten()[index], (weights * ordered).sum().float(), 2e-6)


def test_patch_unit_takes_queries_and_other_types() -> None:
    features, queries = torch.randn(5, 6, 16), torch.randn(2, 3, 16)
    exact = expected_scores(features, 0.2, queries=queries, unit="patch")
    assert exact.shape == (2, 3)
    half = expected_scores(features, 0.2, queries=queries, unit="patch", dtype=torch.bfloat16)
    assert_near(half, exact, 0.01)


def test_bfloat16_scores_are_close_and_float32() -> None:
    features = torch.randn(1, 10, 64) + 0.4 * torch.randn(20, 10, 64)
    exact = expected_scores(features, 0.1)
    half = expected_scores(features, 0.1, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.005
    assert_near(expected_scores(features.bfloat16(), 0.1), exact, 0.01)


def test_scores_do_not_depend_on_length() -> None:
    features = torch.randn(8, 4, 6)
    assert_near(
        expected_scores(features * torch.rand(8, 4, 1).add(0.1), 0.3),
        expected_scores(features, 0.3),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0.0}, "ratio must be in"),
        ({"ratio": 1.5}, "ratio must be in"),
        ({"unit": "pixel"}, "unit must be image or patch"),
        ({"features": torch.zeros(0, 3, 4)}, "non-empty"),
        ({"features": torch.zeros(3, 4)}, "non-empty"),
        ({"features": torch.full((2, 3, 4), torch.nan)}, "not finite"),
        ({"features": torch.full((2, 3, 4), torch.nan), "unit": "patch"}, "not finite"),
        ({"features": torch.ones(1, 3, 4), "leave_self_out": True}, "cannot be left out"),
        ({"queries": torch.ones(1, 3, 4), "leave_self_out": True}, "nothing to leave out"),
        ({"queries": torch.ones(1, 3, 5)}, "channels"),
        ({"strata": ["a"]}, "a stratum for each of the 4 images"),
        ({"strata": ["a"] * 4, "unit": "patch"}, "strata need"),
    ],
)
def test_expected_refuses_wrong_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"features": torch.ones(4, 3, 4), "ratio": 0.5} | change
    with pytest.raises(ValueError, match=message):
        expected_scores(**arguments)


def test_gap_curve_needs_a_ratio() -> None:
    with pytest.raises(ValueError, match="at least one ratio"):
        gap_curve(torch.ones(2, 3, 4), [])


def test_refuses_unknown_options() -> None:
    wrong: dict[str, Any] = {"units": "patch"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'units'"):
        expected_scores(torch.ones(2, 3, 4), 0.5, **wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'units'"):
        gap_curve(torch.ones(2, 3, 4), [0.5], **wrong)


@pytest.mark.parametrize("unit", ["image", "patch"])
def test_progress_is_reported(unit: Any) -> None:
    seen: list[tuple[int, int]] = []
    expected_scores(torch.randn(4, 3, 5), 0.5, unit=unit, progress=lambda *done: seen.append(done))
    assert len(seen) == 4
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    "option", [{}, {"unit": "patch"}, {"strata": [i % 3 for i in range(30)]}, {"ratio": 0.5}]
)
def test_scores_stay_the_same_without_float64(
    monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
) -> None:
    features = torch.randn(30, 6, 8)
    option = {"ratio": 0.1, **option}
    expected = expected_scores(features, **option)
    seen: list[torch.device] = []

    def narrow(device: torch.device) -> torch.dtype:
        seen.append(device)
        return torch.float32

    monkeypatch.setattr(subsampling, "sum_type", narrow)
    torch.testing.assert_close(expected_scores(features, **option), expected, atol=1e-6, rtol=0)
    assert seen
