"""Makes the callbacks that a method's stages need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.callbacks.distillation import DistillationCallback
from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
from meds_plugin.callbacks.progressive_selection import ProgressiveSelectionCallback

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.memory.settings import MemorySettings
    from meds_plugin.selection import SelectionSettings
    from meds_plugin.training.distillation import DistillLoss
    from meds_plugin.training.stages import StagePlan

__all__ = ["stage_callbacks"]


def stage_callbacks(
    plan: StagePlan,
    *,
    memory: MemorySettings,
    loss: DistillLoss,
    selection: SelectionSettings,
    seed: int,
) -> tuple[
    MemoryEnsembleCallback | None,
    DistillationCallback | None,
    ProgressiveSelectionCallback | None,
]:
    """Return the callbacks of a plan's stages; ``None`` for a stage that it lacks.

    Args:
        plan: The stages.
        memory: How training patches are scored.
        loss: Of distillation.
        selection: How images are selected, and what makes an image score of a map.
        seed: Of sampled memories.
    """
    top = selection.top
    ensemble = MemoryEnsembleCallback(memory, seed=seed, top=top) if plan.uses_memory else None
    distill, finetune = plan.named("distill"), plan.named("finetune")
    distillation = DistillationCallback(distill.end, loss=loss, top=top) if distill else None

    def first_scores() -> Tensor:
        if plan.selection_scores == "memory":
            scores = ensemble.image_scores() if ensemble else None
        else:
            scores = distillation.scores if distillation else None
        if scores is None:
            msg = "there are no scores to begin the selection with"
            raise RuntimeError(msg)
        return scores

    progressive = None
    if finetune:
        progressive = ProgressiveSelectionCallback(
            finetune.steps,
            start=finetune.start,
            settings=selection,
            initial=first_scores,
            memory=ensemble.image_scores if ensemble else None,
            holds=True,
        )
    return ensemble, distillation, progressive
