"""Estimates how contaminated a training set is from its scores, or says why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["Contamination", "contamination_report", "estimate_contamination", "pooled"]

LEVEL = 0.9  # how often an interval is meant to contain the true share
MIN_IMAGES = 20  # fewer images give no estimate
_MAX_WIDTH = 0.6  # wider intervals are uninformative
_MIN_EVIDENCE = 8.0  # twice the log likelihood that a second group must gain
_INFLATION = 1.5  # of the likelihood interval: the fit also picks the shape of the normal scores
_SEPARATION = 2.5  # deviations between the means of the two groups
_HIDDEN = 1.0  # assumed limit of hidden contaminated images, for each that stands apart
_SHARES = np.concatenate(
    [[0, 0.005, 0.01, 0.015], np.arange(0.02, 0.06, 0.01), np.arange(0.06, 0.501, 0.02)]
)
_POWERS = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0])
_ITERATIONS = 60
_MAX_POINTS = 400  # points that are fitted; of more scores, neighbours are averaged


@dataclass(frozen=True)
class Contamination:
    """The estimated contaminated share of some images, or why there is no estimate.

    Attributes:
        images: Number of images.
        reason: Why there is no estimate, and all below is ``None``; ``None`` where there is one.
        estimate: Contaminated share in [0, 1]: the images that stand apart and, hidden among the
            others, half as many.
        low: Lower end of the interval: no image is hidden.
        high: Upper end of the interval: as many are hidden as stand apart.
        probability: ``[N]`` in [0, 1], that each image is contaminated; never falls with the score.
    """

    images: int
    reason: str | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    probability: Array | None = None

    def as_dict(self) -> dict[str, float | str | None]:
        """Return all but the probabilities, rounded, as in ``contamination.json``."""
        numbers = {"estimate": self.estimate, "low": self.low, "high": self.high}
        rounded = {key: None if v is None else round(v, 4) for key, v in numbers.items()}
        return {**rounded, "level": LEVEL, "images": self.images, "reason": self.reason}


def estimate_contamination(scores: ArrayLike) -> Contamination:
    """Estimate which share of one category's images is contaminated.

    Two groups are fitted to the scores: the bulk, normal after a power transform of free strength
    (so that skew alone does not count as a second group), and a wider group above it. Contaminated
    images that score like clean ones are hidden and cannot be counted; the interval assumes between
    none of them and as many as stand apart. Without clear evidence of a second group, or with too
    wide an interval, the result is a reason instead of a number.

    Args:
        scores: ``[N]`` finite scores of one category, higher = more suspicious, on any scale.

    Raises:
        ValueError: If a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        msg = "scores must be finite numbers"
        raise ValueError(msg)
    count = len(values)
    if count < MIN_IMAGES:
        return Contamination(count, f"fewer than {MIN_IMAGES} images: too few to tell")
    deviation = standardised(values)
    if deviation is None:
        return Contamination(count, "half of the scores are nearly the same")
    fit = _Fit(deviation)
    profile = fit.likelihood.max(axis=0)
    if 2 * (profile.max() - profile[0]) < _MIN_EVIDENCE:
        reason = (
            "no group of scores is clearly separate; defects that score like normal images "
            "cannot be counted"
        )
        return Contamination(count, reason)
    limit = _INFLATION * NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    low, visible = _interval(2 * (profile.max() - profile), limit)
    if visible >= _SHARES[-1]:
        return Contamination(count, "half of the images or more may be contaminated")
    high = (1 + _HIDDEN) * visible
    if high - low > _MAX_WIDTH:
        return Contamination(count, f"too uncertain: anything from {low:.0%} to {high:.0%} fits")
    apart = float(_SHARES[profile.argmax()])
    estimate = (1 + _HIDDEN / 2) * apart
    # Any image of the bulk may be one of the hidden ones.
    hidden = (estimate - apart) / (1 - apart)
    probability = hidden + (1 - hidden) * fit.probability(deviation)
    return Contamination(count, estimate=estimate, low=low, high=high, probability=probability)


def pooled(parts: Mapping[str, Contamination]) -> Contamination:
    """Add up categories, and the ends of their intervals.

    Args:
        parts: The estimate of every category, at least one.

    Returns:
        The estimate for the whole set, without probabilities; none if a category has none.
    """
    images = sum(part.images for part in parts.values())
    unknown = [name for name, part in parts.items() if part.estimate is None]
    if unknown:
        names = first_few(unknown)
        return Contamination(images, f"unknown for {len(unknown)} of {len(parts)} ({names})")
    shares = [(part.estimate, part.low, part.high) for part in parts.values()]
    weights = [part.images / images for part in parts.values()]
    total = np.array(weights) @ np.array(shares, dtype=np.float64)
    estimate, low, high = (float(value) for value in total)
    return Contamination(images, estimate=estimate, low=low, high=high)


def contamination_report(
    scores: ArrayLike, categories: Sequence[str], groups: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[float | None]]:
    """Estimate the contamination of every category and of the whole set.

    Args:
        scores: ``[N]`` scores, higher = more suspicious.
        categories: The category of each image.
        groups: Camera view or category of each image, within which scores are comparable; default:
            the categories.

    Returns:
        The content of ``contamination.json``, and each image's probability of contamination.
    """
    values = np.asarray(scores, dtype=np.float64)
    names, group_of = np.asarray(categories), np.asarray(groups or categories)
    probability: list[float | None] = [None] * len(values)
    parts = {}
    for name in sorted(set(categories)):
        members = np.flatnonzero(names == name)
        own = values[members].copy()
        views = sorted(set(group_of[members]))
        for view in views if len(views) > 1 else ():
            inside = group_of[members] == view
            scaled = standardised(own[inside])
            own[inside] = 0.0 if scaled is None else scaled
        part = parts[name] = estimate_contamination(own)
        if part.probability is not None:
            for index, value in zip(members, part.probability, strict=True):
                probability[index] = float(value)
    report = {name: part.as_dict() for name, part in parts.items()}
    return {"categories": report, "all": pooled(parts).as_dict()}, probability


def standardised(values: Array) -> Array | None:
    """Return ``[N]`` deviations from the median in robust standard deviations; None if flat."""
    centred = values - np.median(values)
    spread = 1.4826 * float(np.median(np.abs(centred)))
    if spread <= 1e-9 * max(1e-30, float(np.abs(values).max())):
        return None
    return centred / spread


class _Fit:
    """Two normal groups, for each power of the transform and each share of the upper group.

    Attributes:
        likelihood: ``[L, S]`` log likelihood of the deviations for L powers and S shares.
    """

    def __init__(self, deviation: Array) -> None:
        chunks = np.array_split(np.sort(deviation), min(len(deviation), _MAX_POINTS))
        self._count = np.array([len(chunk) for chunk in chunks], dtype=np.float64)
        points = np.array([chunk.mean() for chunk in chunks])
        self._y = np.stack([_transform(points, power) for power in _POWERS])[:, None]
        jacobian = np.sign(points) * np.log1p(np.abs(points))
        self._jacobian = (_POWERS - 1) * (jacobian @ self._count)
        self._centre = np.median(self._y, axis=-1)
        self._scale = 1.4826 * np.median(np.abs(self._y - self._centre[..., None]), axis=-1)
        self.likelihood = np.full((len(_POWERS), len(_SHARES)), -np.inf)
        self._groups = np.zeros((4, *self.likelihood.shape))
        for shift, width in ((_SEPARATION, 3.0), (6.0, 2.0), (12.0, 6.0)):
            self._climb(shift, width)

    def probability(self, deviation: Array) -> Array:
        """Return ``[N]`` probabilities of the upper group: the mean over fits by likelihood."""
        weight = np.exp(self.likelihood - self.likelihood.max())
        weight /= weight.sum()
        order = np.argsort(deviation, kind="stable")
        ordered = np.zeros(len(deviation))
        for place, power in enumerate(_POWERS):
            y = _transform(deviation[order], power)[None]
            for chosen in np.flatnonzero(weight[place] > 1e-6):
                groups = self._groups[:, place, chosen, None]
                lower, upper = _densities(y, groups, _SHARES[chosen])
                ordered += weight[place, chosen] * np.exp(upper - np.logaddexp(lower, upper))[0]
        result = np.empty_like(ordered)
        # A wide upper group is also denser than the bulk far below it, which means nothing.
        result[order] = np.maximum.accumulate(np.where(deviation[order] < 0, 0.0, ordered))
        return np.clip(result, 0.0, 1.0)

    def _climb(self, shift: float, width: float) -> None:
        """Maximise the likelihood from one start; replace the fits that this one beats."""
        shape = self.likelihood.shape
        centre, scale = np.broadcast_to(self._centre, shape), np.broadcast_to(self._scale, shape)
        groups = np.stack([centre, scale, centre + shift * scale, width * scale])
        for _ in range(_ITERATIONS):
            lower, upper = _densities(self._y, groups, _SHARES)
            member = np.exp(upper - np.logaddexp(lower, upper)) * self._count
            rest = self._count - member
            mean, spread = _moments(self._y, rest)
            spread = np.maximum(spread, 0.3 * scale)
            above = (member * self._y).sum(-1) / np.maximum(member.sum(-1), 1e-9)
            above = np.maximum(above, mean + _SEPARATION * spread)
            # One pseudo-image of twice the bulk's spread keeps few images from forming a spike.
            square = (member * (self._y - above[..., None]) ** 2).sum(-1) + (2 * spread) ** 2
            broad = np.maximum(np.sqrt(square / (member.sum(-1) + 1.0)), spread)
            groups = np.stack([mean, spread, above, broad])
        lower, upper = _densities(self._y, groups, _SHARES)
        reached = (np.logaddexp(lower, upper) * self._count).sum(-1) + self._jacobian[:, None]
        better = reached > self.likelihood
        self.likelihood = np.where(better, reached, self.likelihood)
        self._groups = np.where(better, groups, self._groups)


def _densities(y: Array, groups: Array, share: Any) -> tuple[Array, Array]:
    """Return the log densities of both groups, each weighted by its share."""
    mean, spread, above, broad = groups[..., None]
    with np.errstate(divide="ignore"):
        chances = np.log1p(-np.asarray(share))[..., None], np.log(share)[..., None]
    lower = chances[0] - 0.5 * ((y - mean) / spread) ** 2 - np.log(spread)
    upper = chances[1] - 0.5 * ((y - above) / broad) ** 2 - np.log(broad)
    return lower, upper


def _moments(y: Array, weight: Array) -> tuple[Array, Array]:
    total = weight.sum(-1)
    mean = (weight * y).sum(-1) / total
    return mean, np.sqrt((weight * (y - mean[..., None]) ** 2).sum(-1) / total)


def _transform(values: Array, power: float) -> Array:
    """Yeo and Johnson's power transform: powers below 1 compress the upper tail."""
    up, down = np.clip(values, 0, None), np.clip(-values, 0, None)
    above = np.log1p(up) if power == 0 else ((1 + up) ** power - 1) / power
    return np.where(values >= 0, above, -((1 + down) ** (2 - power) - 1) / (2 - power))


def _interval(drop: Array, limit: float) -> tuple[float, float]:
    """Return the shares between which the profile stays within the limit, interpolated."""
    inside = np.flatnonzero(drop <= limit)
    first, last = int(inside[0]), int(inside[-1])

    def edge(within: int, beyond: int) -> float:
        if not 0 <= beyond < len(drop):
            return float(_SHARES[within])
        part = (limit - drop[within]) / (drop[beyond] - drop[within])
        return float(_SHARES[within] + part * (_SHARES[beyond] - _SHARES[within]))

    return edge(first, first - 1), edge(last, last + 1)
