"""Contaminates training images with defective ones, by the protocols of the literature."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meds_plugin.data.injection import defects_wanted, fraction, inject
from meds_plugin.data.split_file import read_split_file
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from meds_plugin.data.samples import Sample, Split

__all__ = [
    "DEFINITIONS",
    "PROTOCOLS",
    "NoiseReport",
    "checked_protocol",
    "checked_ratio",
    "contaminate",
    "recounted",
]

PROTOCOLS = ("overlap", "no_overlap", "overlap_repeat", "split_file")
DEFINITIONS = ("normal", "all")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoiseReport:
    """The contamination asked for and achieved.

    Attributes:
        asked: The ratio; ``None`` if the training images were taken as they are, or from a file
            without a ratio to compare it with.
        protocol: One of `PROTOCOLS`.
        counts: Injected images per category, including repeats and those that the data set's own
            training images held; empty if unknown.
        achieved_of_normal: Injected images as a share of the normal training images, over all
            categories; ``None`` if unknown.
        achieved_of_all: The same as a share of all training images.
        messages: Where the result is not what was asked for, one line each.
        definition: What the ratio is a share of: one of `DEFINITIONS`.
        repeated: How many of the injected images are repeats.
        file: The ``noise_file``, if any.
    """

    asked: float | None
    protocol: str
    counts: dict[str, int] = field(default_factory=dict)
    achieved_of_normal: float | None = None
    achieved_of_all: float | None = None
    messages: list[str] = field(default_factory=list)
    definition: str = "normal"
    repeated: int = 0
    file: str | None = None


def contaminate(
    split: Split,
    ratio: float | None,
    *,
    protocol: str = "overlap",
    seed: int = 0,
    definition: str = "normal",
    noise_file: str | os.PathLike[str] | None = None,
    left_out: Sequence[Sample] = (),
) -> tuple[Split, NoiseReport]:
    """Add defective test images to the training images of each category.

    Which images a category gets depends only on the seed, its name and its own images. With the
    same seed, a larger ratio adds images to those of a smaller one, so a sweep compares like with
    like. Known defects among the training images stay there and count towards the ratio.

    Args:
        split: Images with known labels.
        ratio: Defective images in each category's training images, in [0, 1), by ``definition``.
            ``None`` takes the training images as they are, with ``injected`` as the data set knows
            it; so does 0 if no image at all is known to show a defect.
        protocol: ``overlap`` leaves the injected images in the test set too. ``no_overlap`` removes
            them from it, all but one defective image per category, without which no metric is
            defined. ``overlap_repeat`` is ``overlap``, but where a category's defects run out, they
            are used again: all of them, in a new order each time, slightly rotated and scaled.
            ``split_file`` trains on what ``noise_file`` lists.
        seed: The run's seed.
        definition: ``normal``: the ratio is a share of the normal training images; ``all``: of all
            training images, injected ones included.
        noise_file: See `read_split_file`. With it, the ratio changes nothing, but the report says
            where the file differs from a ratio above 0.
        left_out: Images that cannot be used; ``noise_file`` may name them.

    Returns:
        The new split and the report. The training images keep their order; then come the injected
        ones in the test set's order, then repeats by category as sampled. With ``noise_file``, all
        are in its order. The second use of ``a/test/hole/0.png`` is named
        ``a/test/hole/0.png#2``, the third ends in ``#3``. ``injected`` of every training image is
        set, except where they are taken as they are.

    Raises:
        UserError: If the ratio, the protocol, the definition or the file is wrong, or if the ratio
            is above 0 and no image at all is known to show a defect.

    Source: the authors' lists: ``min(round_half_even(ratio * normal), available)`` per category.
    Unlike these, their sets for different ratios are not nested. Repeats: SoftPatch+.
    """
    ratio = None if ratio is None else checked_ratio(ratio)
    checked_protocol(protocol, definition, noise_file)
    report = NoiseReport(ratio, protocol, definition=definition)
    labelled = any(sample.is_anomaly for sample in [*split.train, *split.test])
    messages: list[str] = []
    if noise_file is not None:
        report = replace(report, asked=ratio or None, file=str(noise_file))
        result = read_split_file(noise_file, split, left_out=left_out)
        if ratio:
            messages = _differences(result, ratio, definition, noise_file)
    elif ratio and not labelled:
        msg = (
            f"noise={ratio:g} needs images that are known to be defective, and the data set has "
            "none; noise=null takes its training images as they are"
        )
        raise UserError(msg)
    elif ratio is not None and labelled:
        result, messages = inject(split, ratio, protocol, seed, definition)
    elif any(sample.injected is not None for sample in split.train):
        result = split
    else:
        return split, report
    for message in messages:
        _LOG.warning("%s", message)
    return result, recounted(replace(report, messages=messages), result.train)


def recounted(report: NoiseReport, train: Sequence[Sample]) -> NoiseReport:
    """Return a report with the counts of the given training images.

    Args:
        report: Holds what was asked for.
        train: The training images, with ``injected`` set.
    """
    counts = _injected(train)
    added = sum(counts.values())
    return replace(
        report,
        counts=counts,
        achieved_of_normal=fraction(added, len(train) - added),
        achieved_of_all=fraction(added, len(train)),
        repeated=sum(sample.variation is not None for sample in train),
    )


def _injected(train: Sequence[Sample]) -> dict[str, int]:
    counts = dict.fromkeys(sorted({sample.category for sample in train}), 0)
    for sample in train:
        counts[sample.category] += sample.injected is True
    return counts


def _differences(
    split: Split, ratio: float, definition: str, noise_file: str | os.PathLike[str]
) -> list[str]:
    """Say where a list's counts are not those of the ``overlap`` protocol at a ratio."""
    known = {s.path: s.category for s in [*split.train, *split.test] if s.is_anomaly}
    available = Counter(known.values())
    normal = Counter(sample.category for sample in split.train if not sample.injected)
    off = []
    for category, found in _injected(split.train).items():
        wanted = min(defects_wanted(ratio, normal[category], definition), available[category])
        if found != wanted:
            off.append(f"{category} {found} instead of {wanted}")
    if not off:
        return []
    more = f", {len(off) - 3} more" if len(off) > 3 else ""
    message = (
        f"noise_file={noise_file} is used, although noise={ratio:g} asks for other numbers of "
        f"defective images: {', '.join(off[:3])}{more}"
    )
    return [message]


def checked_ratio(ratio: object) -> float:
    """Return a noise ratio as a float.

    Raises:
        UserError: If it is not a number in [0, 1).
    """
    value = float(ratio) if is_number(ratio) else math.nan
    if not 0 <= value < 1:
        msg = (
            f"noise must be in [0, 1), got {ratio!r}; noise=0.4 adds defective images numbering "
            "40 % of the normal ones to each category, noise=null takes the training images as "
            "they are"
        )
        raise UserError(msg)
    return value


def checked_protocol(
    protocol: str, definition: str, noise_file: str | os.PathLike[str] | None
) -> None:
    """Check the settings other than the ratio.

    Raises:
        UserError: If one is unknown, or ``split_file`` and ``noise_file`` are not given together.
    """
    for key, value, known in (
        ("noise_protocol", protocol, PROTOCOLS),
        ("noise_definition", definition, DEFINITIONS),
    ):
        if value not in known:
            msg = f"{key} must be one of {', '.join(known)}; got {value!r}"
            raise UserError(msg)
    if protocol == "split_file" and noise_file is None:
        msg = "noise_protocol=split_file needs the list of training images: give noise_file=CSV"
        raise UserError(msg)
    if protocol != "split_file" and noise_file is not None:
        msg = (
            f"noise_file={noise_file} is not used with noise_protocol={protocol}: give "
            "noise_protocol=split_file, or leave the file out"
        )
        raise UserError(msg)
