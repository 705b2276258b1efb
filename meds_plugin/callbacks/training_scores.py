"""What a fit found out about the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from meds_plugin.callbacks.distillation import DistillationCallback
    from meds_plugin.callbacks.memory_ensemble import MemoryEnsembleCallback
    from meds_plugin.callbacks.progressive_selection import ProgressiveSelectionCallback
    from meds_plugin.callbacks.rival import RivalCallback
    from meds_plugin.encoding.reader import ImageReader

__all__ = ["TrainingScores", "collect_scores"]


@dataclass(frozen=True)
class TrainingScores:
    """What a fit found out about every training image; all ``[N]``, higher = more anomalous.

    Of an image in tiles, that is the highest of their scores.

    Attributes:
        score: Selection score of the final model (``method=memory``: the memory score). Where
            the memory is weighed in it: in MADs from the median of the image's group. For a
            rival: its own image score.
        selected: Whether the method selects the image in the end; all where nothing is selected.
        memory: Image score of the memory ensemble, or ``None`` where the method has none.
        distilled: Image score of the distilled model, or ``None``.
    """

    score: Tensor
    selected: Tensor
    memory: Tensor | None
    distilled: Tensor | None


def collect_scores(
    memory: MemoryEnsembleCallback | None,
    distillation: DistillationCallback | None,
    selection: ProgressiveSelectionCallback | None,
    rival: RivalCallback | None,
    *,
    reader: ImageReader,
    trains: bool,
    step: int,
    final: Callable[[], Tensor],
) -> TrainingScores:
    """Put together what the callbacks of a fit hold; call it on every rank.

    Args:
        memory: Stage 1.
        distillation: Stage 2.
        selection: Stage 3.
        rival: What stands in the place of all three.
        reader: The training images.
        trains: Whether the method trains a detector; else the memory's scores, or the rival's, are
            all there is.
        step: The trainer's.
        final: Gives the image scores of the final model, where they are needed.
    """
    memory_scores = memory.image_scores() if memory else None
    distilled = distillation.scores if distillation else None
    untrained = rival.images if rival else memory_scores
    if not trains and untrained is not None:
        score = untrained
    elif distillation and selection is None:  # the distilled model is the final one
        score = distilled = final() if distilled is None else distilled
    else:
        score = final()
    selected = torch.ones(len(score), dtype=torch.bool)
    if selection:
        anchored = selection.anchored(score)
        indices = selection.choose(step, anchored)
        selected = torch.zeros_like(selected).index_fill_(0, indices, value=True)
        score = anchored[reader.clusters.number.to(anchored.device)]
    if (layout := reader.layout) is None:
        return TrainingScores(score, selected, memory_scores, distilled)
    return TrainingScores(
        layout.highest(score),
        layout.highest((~selected).int()) == 0,
        None if memory_scores is None else layout.highest(memory_scores),
        None if distilled is None else layout.highest(distilled),
    )
