"""Derives a run's alarm thresholds from the scores of the training images it selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.evaluation.alarms import AlarmThresholds, CleanScores, threshold_at
from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from meds_plugin.evaluation.final_pass import FinalPass

__all__ = ["calibrate"]


def calibrate(
    final: FinalPass, selected: Tensor, categories: Sequence[str], *, rate: float
) -> AlarmThresholds:
    """Choose alarm thresholds by the scores of the images that count as clean.

    The detector was trained on these images, and selection has left out the highest scores, so new
    normal images score a little higher: false alarms may be more frequent than stated.

    Args:
        final: Scores of all N training images.
        selected: ``[N]`` bool, the images that count as clean.
        categories: The category of each image.
        rate: Share of normal images that may be called defective, in (0, 1).
    """
    clean = {
        name: CleanScores(_ascending(final.image[own]), _ascending(final.peak[own]))
        for name, members in group_indices(categories).items()
        if len(own := members[selected[members]])
    }
    low = float(final.median[selected].median())
    # This puts the pixel threshold in the middle of the heatmaps' scale.
    high = 2 * threshold_at(_ascending(final.peak[selected]), rate) - low
    # Constant maps have no scale of their own.
    return AlarmThresholds.fitted(clean, rate, (low, high if high > low else low + 1.0))


def _ascending(values: Tensor) -> tuple[float, ...]:
    return tuple(values.sort().values.tolist())
