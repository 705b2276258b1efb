"""The training stages of each method: MeDS, and every row it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from meds_plugin.utils.errors import UserError

__all__ = ["METHODS", "RIVAL_METHODS", "UNTRAINED", "Method", "Stage", "StagePlan", "plan_stages"]

Method = Literal[
    "meds",
    "plain",
    "memory",
    "distilled",
    "memory_selected",
    "random_init",
    "patchcore",
    "softpatch",
    "inreach",
    "fun_ad",
    "musc",
]
METHODS: tuple[Method, ...] = get_args(Method)
# Those that have no detector (see `rivals`).
RIVAL_METHODS = ("patchcore", "softpatch", "inreach", "fun_ad", "musc")
UNTRAINED = ("memory", *RIVAL_METHODS)  # have no stages, and leave no detector


@dataclass(frozen=True)
class Stage:
    """A range of optimiser steps with one objective, its own optimiser state and schedule.

    Attributes:
        name: ``train`` (the detector's own loss on every image), ``distill`` (memory scores as
            targets) or ``finetune`` (the detector's own loss on the selected images).
        start: First step.
        end: Step after the last one.
    """

    name: Literal["train", "distill", "finetune"]
    start: int
    end: int

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.end - self.start


@dataclass(frozen=True)
class StagePlan:
    """The stages of a run.

    Attributes:
        stages: Stages in order, without gaps, none empty.
        uses_memory: Whether memory scores of the training images are needed.
        selection_scores: Whose scores decide the first selection: the ``distilled`` model's or the
            ``memory`` ensemble's; ``None`` without selection.
        reinitialise: Whether fine-tuning starts from the initial weights, not the distilled ones.
    """

    stages: tuple[Stage, ...]
    uses_memory: bool
    selection_scores: Literal["distilled", "memory"] | None = None
    reinitialise: bool = False

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps of all stages."""
        return self.stages[-1].end if self.stages else 0

    def at(self, step: int) -> Stage:
        """Return a step's stage: the last one after the end, an empty one if there are none."""
        stages = self.stages or (Stage("train", 0, 0),)
        return next((stage for stage in stages if step < stage.end), stages[-1])

    def cut_short(self, steps: int) -> str | None:
        """Describe a training that ended after too few steps; ``None`` if it made all of them."""
        if steps >= self.total_steps:
            return None
        unselected = self.named("finetune") is not None and self.at(steps).name != "finetune"
        consequence = ", before any image was selected" if unselected else ""
        return f"training ended after {steps} of {self.total_steps} steps{consequence}"

    def named(self, name: str) -> Stage | None:
        """Return the stage of that name, or ``None``."""
        return next((stage for stage in self.stages if stage.name == name), None)


def plan_stages(method: Method, *, distill_steps: int, finetune_steps: int) -> StagePlan:
    """Return the stages of a method.

    Args:
        method: ``meds``: memory, distillation, selection and fine-tuning. ``plain``: the detector
            alone, for the same number of steps. ``memory``: the ensemble alone, no training.
            ``distilled``: stop after distillation. ``memory_selected``: like ``meds``, but
            selection starts from the memory scores instead of the distilled model's.
            ``random_init``: like ``meds``, but fine-tuning starts from the initial weights.
            ``patchcore``, ``softpatch``, ``inreach``, ``fun_ad``, ``musc``: rivals, which have no
            detector to train (see `rivals`).
        distill_steps: Optimiser steps of distillation, >= 0.
        finetune_steps: Optimiser steps of fine-tuning, >= 0.

    Raises:
        UserError: For an unknown method or steps that leave nothing to do.

    Source:
        docs/method.md, section 5. The reference's script for the memory criterion also starts from
        random weights; here each row changes one thing only.
    """
    if method not in METHODS:
        msg = f"method={method!r} is unknown: choose one of {', '.join(METHODS)}"
        raise UserError(msg)
    for key, steps in (("steps.distill", distill_steps), ("steps.finetune", finetune_steps)):
        if steps < 0:
            msg = f"{key} must be 0 or more, got {steps}"
            raise UserError(msg)
    if method in UNTRAINED:
        return StagePlan((), uses_memory=method == "memory")
    total = distill_steps + finetune_steps
    if method == "plain":
        return StagePlan(_chain(("train", total)), uses_memory=False)
    if method == "distilled":
        return StagePlan(_chain(("distill", distill_steps)), uses_memory=True)
    stages = _chain(("distill", distill_steps), ("finetune", finetune_steps))
    # Without distillation there is no distilled model, only the memory scores.
    from_memory = method == "memory_selected" or distill_steps == 0
    return StagePlan(
        stages,
        uses_memory=True,
        selection_scores="memory" if from_memory else "distilled",
        reinitialise=method == "random_init",
    )


def _chain(*parts: tuple[Literal["train", "distill", "finetune"], int]) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    start = 0
    for name, steps in parts:
        if steps:
            stages.append(Stage(name, start, start + steps))
            start += steps
    if not stages:
        msg = "steps.distill and steps.finetune leave nothing to train: give at least one step"
        raise UserError(msg)
    return tuple(stages)
