"""The optimiser of a run, and its learning rate step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR

from meds_plugin.training.optimizer import StableAdamW

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

    from meds_plugin.training.optimizer import OptimizerSettings
    from meds_plugin.training.stages import StagePlan

__all__ = ["staged_optimizer"]


def staged_optimizer(
    groups: list[dict[str, Any]], settings: OptimizerSettings, plan: StagePlan
) -> OptimizerLRSchedulerConfig:
    """Return the optimiser, and a schedule that starts anew with every stage.

    Args:
        groups: Its parameter groups.
        settings: Of both.
        plan: The stages.
    """

    def factor(step: int) -> float:
        stage = plan.at(step)
        return settings.lr_at(step - stage.start, total=stage.steps) / settings.lr

    optimizer = StableAdamW(groups, settings)
    schedule = LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
