"""Learns a run's thresholds from the training images that it found clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from meds_plugin.callbacks.base import shows_progress
from meds_plugin.detectors.modes import evaluating
from meds_plugin.encoding.scoring import score_maps
from meds_plugin.evaluation.alarms import CleanScores, Thresholds, threshold_at
from meds_plugin.evaluation.scorer import judged
from meds_plugin.selection import group_indices

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.evaluation.protocol import EvaluationProtocol
    from meds_plugin.wrapper import MeDSWrapper

__all__ = ["calibrate"]

_CHUNK = 32  # maps that are brought to full size at a time


@torch.no_grad()
def calibrate(
    model: MeDSWrapper,
    selected: Tensor,
    *,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
    rate: float,
) -> Thresholds | None:
    """Score the clean training images as test images are scored; call it on every rank.

    The detector was trained on these images, and the highest scores are not among them, so that
    images of the line score a little higher: false alarms may be more frequent than stated.

    Args:
        model: After ``fit``.
        selected: ``[N]`` bool, the training images that count as clean.
        input_size: Height and width of the images in pixels.
        protocol: How maps become scores.
        rate: Share of normal images that may be called defective, in (0, 1).

    Returns:
        The thresholds; ``None`` for a method that trains no detector.

    Raises:
        RuntimeError: Before a fit.
    """
    if not model.plan.stages:
        return None
    if model.stream is None:
        msg = "thresholds need the training images of a fit"
        raise RuntimeError(msg)
    images = model.stream.images
    indices = selected.nonzero().flatten().tolist()
    maps = score_maps(
        images,
        indices,
        device=model.device,
        progress="threshold" if shows_progress(model.trainer) else None,
    )
    scores, peaks, middles = [], [], []
    with evaluating(model.detector):
        for part in maps.to(model.device).split(_CHUNK):
            evaluated, score = judged(model.view, part, input_size, protocol)
            pixels = evaluated.flatten(1)
            scores.append(score)
            peaks.append(pixels.amax(dim=1))
            middles.append(pixels.median(dim=1).values)
    image, pixel = torch.cat(scores).tolist(), torch.cat(peaks).tolist()
    members = group_indices([images.reader.categories[index] for index in indices])
    clean = {
        name: CleanScores(
            tuple(sorted(image[place] for place in places.tolist())),
            tuple(sorted(pixel[place] for place in places.tolist())),
        )
        for name, places in members.items()
    }
    low = float(torch.cat(middles).median())
    return Thresholds.fitted(clean, rate, (low, _top(low, sorted(pixel), rate)))


def _top(low: float, peaks: list[float], rate: float) -> float:
    """Return where heatmaps end: the pixel threshold is in the middle of their scale."""
    top = 2 * threshold_at(peaks, rate) - low
    return top if top > low else low + 1.0  # maps without any difference
