"""Mixes defective test images into the training images, as in the paper's noisy-data protocol."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from meds_plugin.data.samples import Sample, Split
from meds_plugin.errors import UserError
from meds_plugin.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PROTOCOLS", "NoiseReport", "checked_ratio", "contaminate", "defects_wanted"]

PROTOCOLS = ("overlap", "no_overlap")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoiseReport:
    """What was asked for and what came of it.

    Attributes:
        asked: The ratio; ``None`` if the training images were taken as they are.
        protocol: ``overlap`` or ``no_overlap``.
        counts: Number of injected images per category; empty if taken as they are.
        achieved_of_normal: Injected images as a share of the normal training images, over all
            categories; ``None`` if taken as they are.
        achieved_of_all: The same as a share of all training images.
        messages: A line for each category that had too few defective images.
    """

    asked: float | None
    protocol: str
    counts: dict[str, int] = field(default_factory=dict)
    achieved_of_normal: float | None = None
    achieved_of_all: float | None = None
    messages: list[str] = field(default_factory=list)


def contaminate(
    split: Split, ratio: float | None, *, protocol: str = "overlap", seed: int = 0
) -> tuple[Split, NoiseReport]:
    """Add defective test images to the training images of each category.

    Each category's draw depends on the seed, its name and its own images only. For one seed a
    larger ratio adds images to those of a smaller one, so a sweep compares like with like.

    Args:
        split: Images with known labels.
        ratio: Number of images to add, in [0, 1) as a share of the category's normal ones;
            ``None`` takes the training images as they are, without a claim on what they show.
        protocol: ``overlap`` leaves the added images in the test set too; ``no_overlap`` removes
            them from it, but keeps one defective image a category there, since no metric is
            defined without.
        seed: The run's seed.

    Returns:
        The new split, training images in their order and then the added ones, and the report.
        ``injected`` of every training image is set: ``None`` for all if ``ratio`` is.

    Raises:
        UserError: If the ratio or the protocol is not one of those.

    Source: the authors' lists: ``min(round_half_even(ratio * normal), available)`` a category.
    Unlike here, their sets for different ratios of one seed are not nested.
    """
    ratio = None if ratio is None else checked_ratio(ratio)
    if protocol not in PROTOCOLS:
        msg = f"noise_protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}"
        raise UserError(msg)
    if ratio is None:
        train = [replace(sample, injected=None) for sample in split.train]
        return Split(train=train, test=list(split.test)), NoiseReport(None, protocol)
    train = [replace(sample, injected=sample.is_anomaly) for sample in split.train]
    counts: dict[str, int] = {}
    messages: list[str] = []
    drawn: set[str] = set()
    for category in sorted({sample.category for sample in train}):
        normal = sum(s.category == category and not s.is_anomaly for s in train)
        defects = [s for s in split.test if s.category == category and s.is_anomaly]
        usable = len(defects) if protocol == "overlap" else max(0, len(defects) - 1)
        wanted = defects_wanted(ratio, normal)
        counts[category] = min(wanted, usable)
        if wanted > usable:
            messages.append(_shortage(ratio, category, wanted, usable, normal, protocol))
        drawn.update(_draw(defects, counts[category], category, seed))
    for message in messages:
        _LOG.warning("%s", message)
    train += [replace(sample, injected=True) for sample in split.test if sample.path in drawn]
    test = [s for s in split.test if protocol == "overlap" or s.path not in drawn]
    added, normal = len(drawn), sum(not sample.is_anomaly for sample in split.train)
    of_normal, of_all = _share(added, normal), _share(added, len(train))
    report = NoiseReport(ratio, protocol, counts, of_normal, of_all, messages)
    return Split(train=train, test=test), report


def defects_wanted(ratio: float, normal: int) -> int:
    """Return how many images a ratio asks for, halves rounded to even.

    Computed from the decimal number as it is written, which a float may miss by a hair
    (0.35 * 90 gives less than 31.5).
    """
    return round(Fraction(repr(float(ratio))) * normal)


def _draw(defects: Sequence[Sample], count: int, category: str, seed: int) -> list[str]:
    paths = sorted(sample.path for sample in defects)
    order = numpy_rng(seed, "noise", category).permutation(len(paths))
    return [paths[index] for index in order[:count]]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _shortage(
    ratio: float, category: str, wanted: int, usable: int, normal: int, protocol: str
) -> str:
    kept = " beside the one that stays in the test set" if protocol == "no_overlap" else ""
    return (
        f"noise={ratio:g} asks for {wanted} defective images in category {category} but only "
        f"{usable} exist{kept}: {usable} used ({_share(usable, normal):.2f} of normal, "
        f"{_share(usable, normal + usable):.2f} of all)"
    )


def checked_ratio(ratio: object) -> float:
    """Return a noise ratio as a number.

    Raises:
        UserError: If it is none in [0, 1).
    """
    number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
    value = float(ratio) if number else math.nan  # type: ignore[arg-type]
    if not 0 <= value < 1:
        msg = (
            f"noise must be in [0, 1), got {ratio!r}; noise=0.4 adds defective images numbering "
            "40 % of the normal ones to each category, noise=null takes the training images as "
            "they are"
        )
        raise UserError(msg)
    return value
