from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from meds_plugin.metrics import image_score
from meds_plugin.selection import (
    SelectionSettings,
    anchor,
    deviations,
    held_scores,
    mix,
    select,
    select_by_group,
    stand_apart,
)
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Arrays

T = 10_000
STEPS = (0, 1, 600, 2500, 4999, 5000, 7300, 9999, 10_000)


@pytest.mark.parametrize("category", ["odd", "even", "ties"])
@pytest.mark.parametrize("factor", [3, 1, 0])
def test_selects_what_the_reference_selects(
    golden: Callable[[str], Arrays], category: str, factor: int
) -> None:
    data = golden("selection")
    distilled = torch.from_numpy(data[f"{category}.distilled"]).squeeze(1)
    current = torch.from_numpy(data[f"{category}.current"]).squeeze(1)
    initial = image_score(distilled)
    torch.testing.assert_close(initial, torch.from_numpy(data[f"{category}.score_distilled"]))
    for step in STEPS:
        scores = mix(initial, image_score(current), step, T)
        chosen = select(scores, step, T, k=factor)
        expected = data[f"{category}.mad{factor}.t{step}.selected"]
        median, mad, _, threshold = data[f"{category}.mad{factor}.t{step}.median_mad_we_thr"]
        if len(expected):  # where the reference keeps nothing, we keep the minimum
            assert chosen.indices.tolist() == expected.tolist()
        assert chosen.median == pytest.approx(median, abs=1e-7)
        assert chosen.mad == pytest.approx(mad, abs=1e-7)
        assert chosen.threshold == pytest.approx(threshold, abs=1e-7)


def test_selects_per_view_as_the_reference_does(golden: Callable[[str], Arrays]) -> None:
    data = golden("selection")
    initial = image_score(torch.from_numpy(data["riad.distilled"]).squeeze(1))
    current = image_score(torch.from_numpy(data["riad.current"]).squeeze(1))
    views = group_indices([str(view) for view in data["riad.view"]])
    for step in STEPS:
        chosen = select_by_group(
            mix(initial, current, step, T), views, step=step, total_steps=T, k=1.0
        )
        kept = torch.cat([selection.indices for selection in chosen.values()]).sort().values
        assert kept.tolist() == sorted(data[f"riad.t{step}.selected"].tolist())


def test_first_selection_keeps_fewer_than_half() -> None:
    scores = torch.rand(40)
    assert len(select(scores, 0, 100).indices) == 19


def test_later_selections_let_more_images_in() -> None:
    scores = torch.randn(200).abs()
    kept = [len(select(scores, step, 100).indices) for step in (0, 25, 50, 100)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_k_runs_from_its_start_to_its_end() -> None:
    scores = torch.randn(200)
    for start, end, step, multiple in ((2, 2, 0, 2), (2, 2, 50, 2), (1, 3, 50, 2), (3, 1, 100, 1)):
        chosen = select(scores, step, 100, end, k_start=start)
        assert chosen.threshold == pytest.approx(chosen.median + multiple * chosen.mad, abs=1e-5)
    assert len(select(scores, 0, 0, 3, k_start=0).indices) == len(select(scores, 9, 9, 3).indices)


def test_deviations_do_not_depend_on_a_groups_scale() -> None:
    scores = torch.randn(60)
    groups = {"a": torch.arange(0, 60, 2), "b": torch.arange(1, 60, 2)}
    scaled = scores.clone()
    scaled[groups["b"]] = 50 + 1000 * scores[groups["b"]]
    torch.testing.assert_close(deviations(scaled, groups), deviations(scores, groups))
    result = deviations(scores, groups)
    for members in groups.values():
        assert result[members].median() == 0
        assert result[members].abs().median() == pytest.approx(1.0, abs=1e-5)


def test_deviations_of_scores_that_are_mostly_the_same() -> None:
    groups = {"same": torch.arange(4), "one": torch.tensor([4]), "few": torch.arange(5, 10)}
    scores = torch.tensor([3.0, 3, 3, 3, 7, 1, 1, 1, 1, 6])
    assert deviations(scores, groups).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 5]


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_memory_weighs_as_much_as_it_is_told_to(weight: float) -> None:
    model, memory = torch.rand(20), 5 * torch.rand(20)
    groups = {"all": torch.arange(20)}
    result = anchor(model, memory, groups, weight=weight)
    own, other = deviations(model, groups), deviations(memory, groups)
    torch.testing.assert_close(result, (1 - weight) * own + weight * other)
    if weight == 0:  # what is selected is the same as by the scores themselves
        kept = select_by_group(result, groups, step=3, total_steps=4)["all"].indices
        assert kept.equal(select_by_group(model, groups, step=3, total_steps=4)["all"].indices)


def test_in_a_clean_group_nothing_stands_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, generator=generator)
    scores[260:] = 8 + 2 * torch.randn(40, generator=generator)
    groups = {"clean": torch.arange(100), "dirty": torch.arange(100, 300)}
    apart = stand_apart(scores, groups)
    assert int(apart[260:].sum()) >= 36
    assert not apart[:260].any()


def test_held_scores_are_as_far_from_the_median_as_the_memorys_up_to_four_mads() -> None:
    model, memory = torch.rand(30), torch.rand(30) * 9
    memory[8:10] = 80.0
    groups = {"a": torch.arange(0, 30, 2), "b": torch.arange(1, 30, 2)}
    held = held_scores(model, memory, groups)
    for members in groups.values():
        median = model[members].median()
        mad = (model[members] - median).abs().median()
        expected = deviations(memory, groups)[members].clamp(max=4)
        assert expected.max() == 4
        torch.testing.assert_close((held[members] - median) / mad, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": -1}, "selection.k must be a number of at least 0, got -1"),
        ({"k_start": "a"}, "selection.k_start must be a number of at least 0, got 'a'"),
        ({"memory": 1.5}, "selection.memory must be a number of at least 0 and at most 1, got 1.5"),
        ({"hold": -1}, "selection.hold must be a number of at least 0, got -1"),
        ({"top": 5}, "selection.top must be a number of at least 0 and at most 1, got 5"),
        ({"k": float("nan")}, "selection.k must be a number of at least 0, got nan"),
    ],
)
def test_names_the_wrong_setting(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        SelectionSettings(**settings)
    assert str(error.value) == message


def test_k_zero_stays_at_the_median() -> None:
    scores = torch.rand(31)
    assert len(select(scores, 100, 100, k=0.0).indices) == 15


@pytest.mark.parametrize("scores", [[0.5], [0.2] * 7, [0.1, 0.1, 0.4]])
def test_never_selects_nothing(scores: list[float]) -> None:
    values = torch.tensor(scores)
    for step in (0, 50, 100):
        kept = select(values, step, 100).indices
        assert len(kept) > 0
        assert bool((values[kept] == values.min()).all())


def test_no_deviation_keeps_what_is_under_the_median() -> None:
    scores = torch.tensor([0.1, 0.2, 0.2, 0.2, 0.2, 0.9])
    selection = select(scores, 100, 100)
    assert selection.mad == 0.0
    assert selection.indices.tolist() == [0]


def test_mix_moves_from_the_initial_to_the_current_scores_by_half_time() -> None:
    initial, current = torch.zeros(3), torch.ones(3)
    assert mix(initial, current, 0, 100).tolist() == [0.0] * 3
    assert mix(initial, current, 25, 100).tolist() == [0.5] * 3
    assert mix(initial, current, 50, 100).tolist() == [1.0] * 3
    assert mix(initial, torch.full((3,), torch.nan), 0, 100).tolist() == [0.0] * 3


def test_groups_are_judged_apart_and_keep_their_place() -> None:
    groups = group_indices(["b", "a", "b", "a", "b"])
    scores = torch.tensor([10.0, 0.1, 11.0, 0.2, 12.0])
    chosen = select_by_group(scores, groups, step=0, total_steps=10)
    assert chosen["a"].indices.tolist() == [1]
    assert chosen["b"].indices.tolist() == [0]


def test_refuses_scores_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are not finite; the first is image 1"):
        select(torch.tensor([0.1, torch.nan]), 0, 10)
    with pytest.raises(ValueError, match="non-empty vector"):
        select(torch.empty(0), 0, 10)
