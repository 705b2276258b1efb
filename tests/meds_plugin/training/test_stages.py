from __future__ import annotations

import pytest

from meds_plugin.training.stages import METHODS, Method, plan_stages
from meds_plugin.utils.errors import UserError


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("meds", [("distill", 0, 30), ("finetune", 30, 80)]),
        ("memory_selected", [("distill", 0, 30), ("finetune", 30, 80)]),
        ("random_init", [("distill", 0, 30), ("finetune", 30, 80)]),
        ("plain", [("train", 0, 80)]),
        ("distilled", [("distill", 0, 30)]),
        ("memory", []),
    ],
)
def test_stages_of_each_method(method: Method, stages: list[tuple[str, int, int]]) -> None:
    plan = plan_stages(method, distill_steps=30, finetune_steps=50)
    assert [(stage.name, stage.start, stage.end) for stage in plan.stages] == stages
    assert plan.uses_memory == (method != "plain")
    assert plan.total_steps == (stages[-1][2] if stages else 0)


def test_plain_trains_as_long_as_meds() -> None:
    totals = {
        method: plan_stages(method, distill_steps=30, finetune_steps=50).total_steps
        for method in METHODS
    }
    assert totals["plain"] == totals["meds"] == totals["random_init"] == totals["memory_selected"]


def test_the_ablations_change_one_thing_each() -> None:
    meds, memory_selected, random_init = (
        plan_stages(method, distill_steps=1, finetune_steps=1)
        for method in ("meds", "memory_selected", "random_init")  # type: tuple[Method, ...]
    )
    assert (meds.selection_scores, meds.reinitialise) == ("distilled", False)
    assert (memory_selected.selection_scores, memory_selected.reinitialise) == ("memory", False)
    assert (random_init.selection_scores, random_init.reinitialise) == ("distilled", True)


def test_without_distillation_the_memory_selects() -> None:
    plan = plan_stages("meds", distill_steps=0, finetune_steps=5)
    assert [stage.name for stage in plan.stages] == ["finetune"]
    assert plan.selection_scores == "memory"


def test_a_step_belongs_to_the_stage_that_holds_it() -> None:
    plan = plan_stages("meds", distill_steps=3, finetune_steps=4)
    assert [plan.at(step).name for step in (0, 2, 3, 6, 7)] == [
        "distill",
        "distill",
        "finetune",
        "finetune",
        "finetune",
    ]


def test_refuses_what_leaves_nothing_to_do() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        plan_stages("meds", distill_steps=0, finetune_steps=0)
    with pytest.raises(UserError, match=r"steps\.finetune must be 0 or more, got -1"):
        plan_stages("meds", distill_steps=1, finetune_steps=-1)
    with pytest.raises(UserError, match="choose one of meds, plain"):
        plan_stages("best", distill_steps=1, finetune_steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "steps", "said"),
    [
        ("meds", 80, None),
        ("meds", 0, "training ended after 0 of 80 steps, before any image was selected"),
        ("meds", 29, "training ended after 29 of 80 steps, before any image was selected"),
        ("meds", 30, "training ended after 30 of 80 steps"),
        ("plain", 79, "training ended after 79 of 80 steps"),
        ("distilled", 5, "training ended after 5 of 30 steps"),
        ("memory", 0, None),
    ],
)
def test_says_what_a_training_that_ended_early_lacks(
    method: Method, steps: int, said: str | None
) -> None:
    assert plan_stages(method, distill_steps=30, finetune_steps=50).cut_short(steps) == said
