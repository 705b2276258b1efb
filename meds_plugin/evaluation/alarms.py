"""Alarm thresholds: the scores above which an image or a pixel is called defective.

They follow from a rate of false alarms and the sorted scores of the training images that the run
found clean. A run's ``threshold.json`` stores both, so that another rate needs no training.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "AlarmThreshold",
    "AlarmThresholds",
    "CleanScores",
    "check_false_alarm_rate",
    "threshold_at",
]

FORMAT = 1


@dataclass(frozen=True)
class CleanScores:
    """Scores of one category's images that the run found clean, ascending; higher = more anomalous.

    Attributes:
        image: Image scores, computed as in the evaluation.
        pixel: The largest value of each image's evaluated map.
    """

    image: tuple[float, ...]
    pixel: tuple[float, ...]

    def __add__(self, other: CleanScores) -> CleanScores:
        """Merge the scores of two categories."""
        return CleanScores(
            tuple(sorted(self.image + other.image)), tuple(sorted(self.pixel + other.pixel))
        )


@dataclass(frozen=True)
class AlarmThreshold:
    """Where alarms begin; what lies above is called defective.

    Attributes:
        image: For image scores.
        pixel: For pixels of evaluated maps; the share of normal images with any pixel above it is
            about the share of those with a score above ``image``.
    """

    image: float
    pixel: float


@dataclass(frozen=True)
class AlarmThresholds:
    """Everything that turns a run's maps and scores into labels, masks and heatmaps.

    Attributes:
        scores: The scores of each training category.
        rate: Share of normal images that may be called defective, in (0, 1).
        scale: Values of evaluated maps at which heatmap colours begin and end.
        chosen: The thresholds of each category, and of all images together under ``None``. They
            follow from the rate (`fitted`), unless somebody has edited the file.
    """

    scores: Mapping[str, CleanScores]
    rate: float
    scale: tuple[float, float]
    chosen: Mapping[str | None, AlarmThreshold]

    @classmethod
    def fitted(
        cls, scores: Mapping[str, CleanScores], rate: float, scale: tuple[float, float]
    ) -> AlarmThresholds:
        """Choose thresholds by a rate."""
        names: list[str | None] = [None, *sorted(scores)]
        found = cls(scores, rate, scale, {})
        return cls(scores, rate, scale, {name: found.of(name, rate=rate) for name in names})

    def of(self, category: str | None = None, *, rate: float | None = None) -> AlarmThreshold:
        """Return the threshold of a category, or that of all images together.

        Args:
            category: One of ``scores``; ``None``: all of them.
            rate: Derive the threshold from this rate instead.

        Raises:
            UserError: If there are no scores of that category.
        """
        scores = self.clean(category)
        if rate is None:
            return self.chosen[category]
        return AlarmThreshold(threshold_at(scores.image, rate), threshold_at(scores.pixel, rate))

    def clean(self, category: str | None = None) -> CleanScores:
        """Return the scores of a category, or of all (see `of`)."""
        if category is None:
            return sum(self.scores.values(), start=CleanScores((), ()))
        if category not in self.scores:
            known = sorted(self.scores)
            msg = f"threshold.json has no scores of category {category}, but of {known}"
            raise UserError(msg)
        return self.scores[category]

    def shortfall(self, category: str | None = None, *, rate: float | None = None) -> str | None:
        """Return a warning if there are too few images for a rate, else ``None``.

        A threshold that somebody has edited needs none.
        """
        count = len(self.clean(category).image)
        wanted = self.rate if rate is None else rate
        edited = rate is None and self.of(category) != self.of(category, rate=wanted)
        if edited or _rank(count, wanted) <= count:
            return None
        needed = math.ceil(1 / wanted - 1 - 1e-9)
        whose = "all categories together" if category is None else category
        return (
            f"false_alarm_rate={wanted:g} needs {needed} clean training images, but there "
            f"are {count} of {whose}: the threshold is their highest score, a rate of about "
            f"{1 / (count + 1):.2g}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``threshold.json``."""
        figures = {
            name: {**asdict(self.of(name)), "images": len(self.clean(name).image)}
            for name in (None, *sorted(self.scores))
        }
        return {
            "format": FORMAT,
            "false_alarm_rate": self.rate,
            "global": figures.pop(None),
            "categories": figures,
            "scale": list(self.scale),
            "scores": {
                name: {"image": list(each.image), "pixel": list(each.pixel)}
                for name, each in sorted(self.scores.items())
            },
        }

    @classmethod
    def read(cls, path: Path) -> AlarmThresholds:
        """Read a ``threshold.json``.

        Raises:
            UserError: If it cannot be read or has other content.
        """
        try:
            return cls._parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"{path} is not a threshold file of a run ({brief(error)})"
            raise UserError(msg) from error

    @classmethod
    def _parse(cls, content: Mapping[str, Any]) -> AlarmThresholds:
        """Parse the content of a ``threshold.json``.

        Raises:
            KeyError: If something is missing.
            ValueError: If a value is out of its range; of another type also `TypeError` and others.
        """
        scores = {
            str(name): CleanScores(_numbers(each["image"]), _numbers(each["pixel"]))
            for name, each in content["scores"].items()
        }
        low, high = _numbers(content["scale"])
        whole = bool(scores) and all(each.image and each.pixel for each in scores.values())
        if content["format"] != FORMAT or not whole or not low < high:
            msg = "values are missing or out of their range"
            raise ValueError(msg)
        chosen: dict[str | None, AlarmThreshold] = {None: _threshold(content["global"])}
        for name in scores:
            chosen[name] = _threshold(content["categories"][name])
        return cls(scores, check_false_alarm_rate(content["false_alarm_rate"]), (low, high), chosen)


def threshold_at(scores: Sequence[float], rate: float) -> float:
    """Return the score above which at most a share of normal images lies.

    It is the k-th of n sorted scores, k = ceil((n + 1) * (1 - rate)): a new image like these lies
    above it with a probability of at most ``rate``, for every n. If n is less than 1 / rate - 1, no
    score is that high, and the largest is returned.

    Args:
        scores: Ascending, at least one.
        rate: In (0, 1).

    Source:
        Split conformal prediction's quantile.
    """
    return scores[min(_rank(len(scores), rate), len(scores)) - 1]


def check_false_alarm_rate(rate: object) -> float:
    """Return a rate of false alarms.

    Raises:
        UserError: If it is no number in (0, 1).
    """
    if not is_number(rate) or not 0 < rate < 1:
        msg = f"false_alarm_rate must be a share of normal images in (0, 1), got {rate!r}"
        raise UserError(msg)
    return float(rate)


def _rank(count: int, rate: float) -> int:
    # The small offset absorbs rounding: (99 + 1) * (1 - 0.01) is not exactly 99.
    return max(1, math.ceil((count + 1) * (1 - rate) - 1e-9))


def _threshold(figures: Mapping[str, Any]) -> AlarmThreshold:
    (image,), (pixel,) = _numbers([figures["image"]]), _numbers([figures["pixel"]])
    return AlarmThreshold(image, pixel)


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)) or list(numbers) != sorted(numbers):
        msg = "scores are not sorted numbers"
        raise ValueError(msg)
    return numbers
