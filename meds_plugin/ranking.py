"""How well a ranking of the training images finds the contaminated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meds_plugin.metrics.curves import score_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["auprc", "inspection_depth", "ranking_metrics"]


def inspection_depth(scores: Tensor | ArrayLike, is_anomaly: Tensor | ArrayLike) -> float:
    """Compute the share of the list to review until the last contaminated image is found.

    The list is reviewed by descending score. Ties count against the ranking: images tied with the
    last contaminated one are reviewed before it.

    Args:
        scores: ``[N]`` any real values, higher = more suspicious.
        is_anomaly: ``[N]`` 0 or 1, 1 = contaminated.

    Returns:
        A float in (0, 1], lower is better; at best the share of contaminated images.

    Raises:
        UndefinedMetricError: If no image is contaminated.
        ValueError: If shapes differ, scores are not finite, or labels are not 0 and 1.

    Source:
        docs/method.md, section 4, "Active label correction".
    """
    curve = score_curve(scores, is_anomaly, unit="images", need_negatives=False)
    reviewed = curve.positives + int(curve.alarms[-1])
    return reviewed / (curve.positives + curve.negatives)


def auprc(scores: Tensor | ArrayLike, is_anomaly: Tensor | ArrayLike) -> float:
    """Compute average precision with the contaminated images as the positives.

    Args:
        scores: ``[N]`` any real values, higher = more suspicious.
        is_anomaly: ``[N]`` 0 or 1, 1 = contaminated.

    Returns:
        A float in [0, 1]; 1 where all images are contaminated.

    Raises:
        UndefinedMetricError: If no image is contaminated.
        ValueError: If shapes differ, scores are not finite, or labels are not 0 and 1.
    """
    curve = score_curve(scores, is_anomaly, unit="images", need_negatives=False)
    return curve.average_precision()


def ranking_metrics(
    scores: Tensor, categories: Sequence[str], injected: Sequence[bool | None]
) -> dict[str, Any]:
    """Score a ranking by the images that the noise protocol added.

    Args:
        scores: ``[N]`` scores, higher = more suspicious.
        categories: The category of each image.
        injected: Whether each was added; ``None``: unknown.

    Returns:
        ``auprc`` and ``inspection_depth`` over the whole list, in [0, 1], and under
        ``categories`` for each category; ``None`` if nothing was added or it is unknown.
    """

    def both(members: Sequence[int]) -> dict[str, float | None]:
        truth = [bool(injected[index]) for index in members]
        if not any(truth):
            return {"auprc": None, "inspection_depth": None}
        own = scores[list(members)]
        return {"auprc": auprc(own, truth), "inspection_depth": inspection_depth(own, truth)}

    members: dict[str, list[int]] = {name: [] for name in sorted(set(categories))}
    for index, name in enumerate(categories):
        members[name].append(index)
    of_each = {name: both(own) for name, own in members.items()}
    return {**both(range(len(categories))), "categories": of_each}
