"""What a fit found out about the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from meds_plugin.callbacks.base import shows_progress
from meds_plugin.encoding.scoring import score_images

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.wrapper import MeDSWrapper

__all__ = ["TrainingScores", "training_scores"]


@dataclass(frozen=True)
class TrainingScores:
    """What a fit found out about every training image; all ``[N]``, higher = more anomalous.

    Attributes:
        score: Selection score of the final model (``method=memory``: the memory score).
        selected: Whether the method keeps the image in the end; all where nothing is selected.
        memory: Image score of the memory ensemble, or ``None`` where the method has none.
        distilled: Image score of the distilled model, or ``None``.
    """

    score: Tensor
    selected: Tensor
    memory: Tensor | None
    distilled: Tensor | None


def training_scores(model: MeDSWrapper, images: EncodedImages) -> TrainingScores:
    """Score the training images with a fitted model; call it on every rank.

    Args:
        model: After ``fit``.
        images: Its training images.
    """
    memory = model.memory.image_scores() if model.memory else None
    if not model.plan.stages and memory is not None:
        return TrainingScores(memory, torch.ones(len(memory), dtype=torch.bool), memory, None)
    distilled = model.distillation.scores if model.distillation else None
    ends_distilled = model.plan.selection_scores is None and model.distillation is not None
    if ends_distilled and distilled is not None:
        score = distilled  # the fit has scored its last weights already
    else:
        model.to(model.trainer.strategy.root_device)
        score = score_images(
            images,
            top=model.selection_top,
            device=model.device,
            progress="ranking" if shows_progress(model.trainer) else None,
        )
        distilled = score if ends_distilled else distilled
    selected = torch.ones(len(score), dtype=torch.bool)
    if model.selection:
        kept = model.selection.choose(model.global_step, score)
        selected = torch.zeros_like(selected).index_fill_(0, kept, value=True)
    return TrainingScores(score, selected, memory, distilled)
