"""Progressive selection: which training images a detector learns from at a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from meds_plugin.metrics.contamination import estimate_contamination
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Selection",
    "SelectionSettings",
    "anchor",
    "deviations",
    "held_scores",
    "mix",
    "select",
    "select_by_group",
    "stand_apart",
]

_FAR = 4.0  # MADs


class Selection(NamedTuple):
    """The images selected of one group, and the figures behind the decision.

    Attributes:
        indices: ``[K]`` int64, ascending, K >= 1: images whose score is below the threshold.
        threshold: tau_t; an image is selected if its score is strictly smaller.
        median: Lower median of the scores.
        mad: Lower median of the absolute deviations from it, unscaled.
    """

    indices: Tensor
    threshold: float
    median: float
    mad: float


@dataclass(frozen=True)
class SelectionSettings:
    """How images are selected: the keys under ``selection`` of a run's configuration.

    Attributes:
        k: Final multiple of the MAD in the threshold; 3 in the reference.
        k_start: Multiple at the first step, from which k_t runs to ``k``; 0 in the reference.
        memory: Weight of the memory's scores in selection, in [0, 1]; the model's own have the
            rest. 0 in the reference.
        hold: Weight of the loss that keeps the scores of clear outliers high (`stand_apart`,
            `held_scores`); 0, as in the reference: they are only left out.
        top: Share of a map's largest values that are averaged into an image score; 0.01 in the
            reference, 0 for the paper's maximum. A detector's ``image_score`` takes precedence.
    """

    k: float = 2.0
    k_start: float = 2.0
    memory: float = 0.75
    hold: float = 1.0
    top: float = 0.01

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        for key, value, largest in (
            ("k", self.k, math.inf),
            ("k_start", self.k_start, math.inf),
            ("memory", self.memory, 1.0),
            ("hold", self.hold, math.inf),
            ("top", self.top, 1.0),
        ):
            if not isinstance(value, (int, float)) or not 0 <= value <= largest:
                limit = "" if largest == math.inf else f" and at most {largest:g}"
                msg = f"selection.{key} must be a number of at least 0{limit}, got {value!r}"
                raise UserError(msg)


def deviations(scores: Tensor, groups: Mapping[str, Tensor]) -> Tensor:
    """Return how many MADs each score lies above the median of its group.

    Args:
        scores: ``[N]`` scores of all images, higher = more anomalous.
        groups: Image indices of each group.

    Returns:
        ``[N]`` (score - median) / MAD, with lower medians. If half of a group's scores are equal,
        the mean absolute deviation replaces the MAD; if all are equal, the result is 0.
    """
    result = torch.zeros_like(scores)
    for members in groups.values():
        median, spread = _median_and_mad(scores[members])
        apart = scores[members] - median
        if spread == 0:
            spread = apart.abs().mean()
        if spread > 0:
            result[members] = apart / spread
    return result


def anchor(model: Tensor, memory: Tensor, groups: Mapping[str, Tensor], *, weight: float) -> Tensor:
    """Anchor the scores of a model in training to those of the memory.

    A model trained on the images that its own scores select confirms those scores: what was left
    out becomes suspicious, contaminated or not. The memory's scores depend on no selection.

    Args:
        model: ``[N]`` image scores of the model, higher = more anomalous.
        memory: ``[N]`` image scores of the memory ensemble, likewise.
        groups: Image indices of each group.
        weight: Weight of the memory, in [0, 1].

    Returns:
        ``[N]`` weighted means of the `deviations` of both.
    """
    own = (1.0 - weight) * deviations(model, groups)
    return own + weight * deviations(memory.to(model), groups)


def stand_apart(memory: Tensor, groups: Mapping[str, Tensor], certainty: float = 0.99) -> Tensor:
    """Find clear outliers: images that are almost certainly contaminated.

    A group whose scores show no second population has none, and neither has a clean set.

    Args:
        memory: ``[N]`` image scores of the memory ensemble, higher = more anomalous.
        groups: Image indices of each group.
        certainty: Probability from which an image counts (see `estimate_contamination`).

    Returns:
        bool ``[N]``.
    """
    result = torch.zeros(len(memory), dtype=torch.bool)
    for members in groups.values():
        probability = estimate_contamination(memory[members].double().cpu().numpy()).probability
        if probability is not None:
            result[members] = torch.from_numpy(probability >= certainty)
    return result


def held_scores(model: Tensor, memory: Tensor, groups: Mapping[str, Tensor]) -> Tensor:
    """Return the scores at which a model is as far from a group's median as the memory is.

    At most four MADs: more would distort the maps around defects.

    Args:
        model: ``[N]`` image scores of the model, higher = more anomalous.
        memory: ``[N]`` image scores of the memory ensemble, likewise.
        groups: Image indices of each group.

    Returns:
        ``[N]`` on the model's scale: median + min(4, `deviations` of the memory) * MAD.
    """
    result = model.clone()
    wanted = deviations(memory.to(model), groups).clamp(max=_FAR)
    for members in groups.values():
        median, mad = _median_and_mad(model[members])
        result[members] = median + wanted[members] * mad
    return result


def mix(initial: Tensor, current: Tensor, step: int, total_steps: int) -> Tensor:
    """Blend the scores of the distilled model into those of the current one.

    Args:
        initial: ``[N]`` image scores of the model that fine-tuning started from, higher = more
            anomalous.
        current: ``[N]`` image scores of the model at this step; not used in step 0.
        step: Optimiser steps taken in the selection stage, in [0, total_steps].
        total_steps: Length of that stage.

    Returns:
        ``[N]`` eta_t = (1 - alpha) * initial + alpha * current, alpha = min(1, 2 * step / total).

    Source:
        docs/method.md, section 4; alpha reaches 1 at half time, as in the paper and the reference.
    """
    alpha = 1.0 - max(1.0 - _progress(step, total_steps) / 0.5, 0.0)
    if alpha == 0.0:
        return initial.clone()
    if alpha == 1.0:
        return current.clone()
    return (1.0 - alpha) * initial + alpha * current


def select(
    scores: Tensor, step: int, total_steps: int, k: float = 3.0, *, k_start: float = 0.0
) -> Selection:
    """Select the images of one group whose score is below median + k_t * MAD.

    Args:
        scores: ``[N]`` finite scores of one category (or view), higher = more anomalous, N >= 1.
        step: Optimiser steps taken in the selection stage; k_t changes linearly from ``k_start`` in
            step 0 to ``k`` in step ``total_steps``.
        total_steps: Length of that stage.
        k: Final multiple of the MAD; 3 in the reference for MVTec AD and VisA, 1 for Real-IAD.
        k_start: First multiple; 0 in the reference.

    Returns:
        The selection, fewer than half of the images if k_t is 0. If no image lies below the
        threshold (ties, a single image), those at the minimum are selected instead.

    Raises:
        ValueError: If there are no scores or some are not finite.

    Source:
        docs/method.md, section 4: the paper's tau_t, the reference's lower medians and strict <.
    """
    if scores.ndim != 1 or scores.numel() == 0:
        msg = f"scores must be a non-empty vector, got shape {tuple(scores.shape)}"
        raise ValueError(msg)
    if not bool(torch.isfinite(scores).all()):
        bad = torch.nonzero(~torch.isfinite(scores)).flatten()
        msg = f"{len(bad)} of {len(scores)} scores are not finite; the first is image {int(bad[0])}"
        raise ValueError(msg)
    median, mad = _median_and_mad(scores)
    multiple = k_start + (k - k_start) * min(1.0, _progress(step, total_steps))
    threshold = median + multiple * mad
    indices = torch.nonzero(scores < threshold).flatten()
    if indices.numel() == 0:
        indices = torch.nonzero(scores == scores.min()).flatten()
    return Selection(indices, float(threshold), float(median), float(mad))


def select_by_group(
    scores: Tensor,
    groups: Mapping[str, Tensor],
    *,
    step: int,
    total_steps: int,
    k: float = 3.0,
    k_start: float = 0.0,
) -> dict[str, Selection]:
    """Apply `select` to every group on its own; indices refer to the whole set.

    Args:
        scores: ``[N]`` scores of all images, higher = more anomalous.
        groups: Image indices of each group (see `meds_plugin.utils.groups.group_indices`).
        step: See `select`.
        total_steps: See `select`.
        k: See `select`.
        k_start: See `select`.
    """
    chosen = {}
    for name, members in groups.items():
        own = select(scores[members], step, total_steps, k, k_start=k_start)
        chosen[name] = own._replace(indices=members[own.indices])
    return chosen


def _median_and_mad(scores: Tensor) -> tuple[Tensor, Tensor]:
    median = scores.median()  # torch's median is the lower one
    return median, (scores - median).abs().median()


def _progress(step: int, total_steps: int) -> float:
    """Return step / total_steps; a stage without steps is over from the start."""
    return step / total_steps if total_steps > 0 else 1.0
