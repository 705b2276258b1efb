"""Samples the defective images that a noise ratio asks for; repeats them where they run out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice
from typing import TYPE_CHECKING

from meds_plugin.data.samples import Sample, Split, Variation
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

__all__ = ["defects_wanted", "fraction", "inject", "repeat_variation"]


def defects_wanted(ratio: float, normal: int, definition: str = "normal") -> int:
    """Return how many images a ratio asks for, halves rounded to even.

    Computed from the decimal number as written: as a float, 0.35 * 90 is less than 31.5.
    """
    share = Fraction(repr(float(ratio)))
    return round((share if definition == "normal" else share / (1 - share)) * normal)


def inject(
    split: Split, ratio: float, protocol: str, seed: int, definition: str
) -> tuple[Split, list[str]]:
    """Add the defective test images that a ratio asks for to the training images.

    Args:
        split: Images with known labels.
        ratio: In [0, 1).
        protocol: ``overlap``, ``no_overlap`` or ``overlap_repeat`` (see `contaminate`).
        seed: The run's seed.
        definition: ``normal`` or ``all`` (see `contaminate`).

    Returns:
        The new split, with ``injected`` set for every training image, and messages: one per
        category with too few defective images, and one if the training images already held more
        than the ratio asks for.
    """
    train = [replace(s, injected=s.is_anomaly or s.injected is True) for s in split.train]
    names = {sample.path for sample in [*train, *split.test]}
    paths = {sample.path for sample in train}
    added: list[Sample] = []
    messages: list[str] = []
    surplus = 0
    for category in sorted({sample.category for sample in train}):
        known = Counter(sample.injected for sample in train if sample.category == category)
        defects = [
            s for s in split.test if s.category == category and s.is_anomaly and s.path not in paths
        ]
        wanted = defects_wanted(ratio, known[False], definition) - known[True]
        usable = len(defects)
        if protocol == "overlap_repeat" and defects:
            usable = max(usable, wanted)
        elif protocol == "no_overlap":
            usable = max(0, usable - 1)
        if wanted > usable:
            short = (known[True] + wanted, known[True] + usable, known[False])
            messages.append(_shortage(ratio, category, *short, protocol))
        surplus += max(0, -wanted)
        added += islice(_uses(defects, category, seed, names), max(0, min(wanted, usable)))
    if surplus:
        messages.append(
            f"the training images contain {surplus} more known defects than noise={ratio:g} asks "
            "for: they stay; noise=null takes the training images as they are"
        )
    sampled = {sample.path for sample in added}
    train += [replace(sample, injected=True) for sample in split.test if sample.path in sampled]
    train += [sample for sample in added if sample.variation is not None]
    test = [s for s in split.test if protocol != "no_overlap" or s.path not in sampled]
    return replace(split, train=train, test=test), messages


def _uses(defects: Sequence[Sample], category: str, seed: int, names: Set[str]) -> Iterator[Sample]:
    """Yield every defective image once, in random order, then repeats of all, without end."""
    ordered = sorted(defects, key=lambda sample: sample.path)
    for number in count(1) if ordered else ():
        again = () if number == 1 else (number,)
        for index in numpy_rng(seed, "noise", category, *again).permutation(len(ordered)):
            sample = ordered[index]
            yield _repeat(sample, number, seed, names) if again else sample


def _repeat(sample: Sample, number: int, seed: int, names: Set[str]) -> Sample:
    variation = repeat_variation(sample, number, seed)
    name = f"{sample.path}#{number}"
    while name in names:
        name += "#"
    return replace(sample, path=name, injected=True, variation=variation)


def repeat_variation(sample: Sample, number: int, seed: int) -> Variation:
    """Return how the n-th use of an image differs: by up to 3 degrees and 3 % of its size."""
    rng = numpy_rng(seed, "variation", sample.category, sample.path, number)
    return Variation(turn=rng.uniform(-3.0, 3.0), scale=rng.uniform(0.97, 1.03))


def fraction(part: int, whole: int) -> float:
    """Return ``part / whole``; 0 if the whole is 0."""
    return part / whole if whole else 0.0


def _shortage(
    ratio: float, category: str, wanted: int, usable: int, normal: int, protocol: str
) -> str:
    beside = " beside the one that stays in the test set" if protocol == "no_overlap" else ""
    return (
        f"noise={ratio:g} asks for {wanted} defective images in category {category} but only "
        f"{usable} exist{beside}: {usable} used ({fraction(usable, normal):.2f} of normal, "
        f"{fraction(usable, normal + usable):.2f} of all)"
    )
