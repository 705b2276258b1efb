"""Faults of images that can be read: what the training images have, and how the user is told."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.data.check import image_key
from meds_plugin.data.faults import shown
from meds_plugin.faults.duplicates import near_duplicate_groups
from meds_plugin.faults.issues import find_issues
from meds_plugin.faults.wrong_product import wrong_products
from meds_plugin.utils.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meds_plugin.data.check import CheckReport
    from meds_plugin.data.samples import Sample, Split
    from meds_plugin.faults.issues import Issues

__all__ = ["ImageFaults", "find_faults"]


@dataclass(frozen=True)
class ImageFaults:
    """Faults of N training images, in their order.

    Attributes:
        issues: The words for each (see `Issues`), ``wrong_product`` where that is known.
        groups: A number for each; near-duplicates share one (see `near_duplicate_groups`).
        lines: A description for the user.
    """

    issues: list[tuple[str, ...]]
    groups: list[int]
    lines: list[str]

    def with_wrong_products(
        self, train: Sequence[Sample], vectors: NDArray[Any], normal: NDArray[np.bool_]
    ) -> ImageFaults:
        """Return the faults with the issue ``wrong_product``, and lines on that alone.

        Args:
            train: The training images.
            vectors: ``[N, D]`` what they show, of unit length.
            normal: ``[N]`` those that are taken for normal.
        """
        wrong = wrong_products(vectors, [sample.category for sample in train], normal)
        issues, found = list(self.issues), np.flatnonzero(wrong).tolist()
        for i in found:
            issues[i] = (*issues[i], "wrong_product")
        lines = [
            f"training images that look like another category: {len(found)}, first "
            f"{shown(train[i].path)}"
            for i in found[:1]
        ]
        return replace(self, issues=issues, lines=lines)


def find_faults(split: Split, report: CheckReport) -> ImageFaults:
    """Compare the images of each category, or camera view, with each other.

    Args:
        split: The images, after contamination; all usable.
        report: Their check.
    """
    samples = [*split.train, *split.test]
    facts = [report.images[image_key(sample.image)] for sample in samples]
    looks = [fact.look for fact in facts]
    sets = [sample.group for sample in samples]
    groups = near_duplicate_groups(looks, sets)
    train = len(split.train)  # comes first, so its groups have the lowest numbers
    issues = find_issues(looks[:train], sets[:train])
    digests = [fact.digest for fact in facts]
    lines = [*_near_duplicates(samples, groups, digests, train), *_issues(split.train, issues)]
    return ImageFaults(issues.images, groups[:train], lines)


def _near_duplicates(
    samples: Sequence[Sample], groups: Sequence[int], digests: Sequence[str], train: int
) -> list[str]:
    """Describe near-duplicates; those of equal files are described elsewhere."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    images = 0  # in the groups of training images
    within: list[tuple[int, int]] = []
    leaks: list[tuple[int, int]] = []
    injected: list[tuple[int, int]] = []
    for each in members.values():
        own = [i for i in each if i < train]
        known = {digests[i] for i in own}
        if len(known) > 1:
            images += len(own)
            within.append((own[0], next(i for i in own if digests[i] != digests[own[0]])))
        clean = [i for i in own if not samples[i].injected]
        kind = leaks if clean else injected
        kind += [(i, j) for i in (clean or own)[:1] for j in each if digests[j] not in known]
    kinds = (
        (within, f"{counted(len(within), 'group')} of {images} training images"),
        (leaks, f"{counted(len(leaks), 'test image')} of training images, a leak"),
        (injected, f"{counted(len(injected), 'test image')} of injected images"),
    )
    lines = [
        f"near-duplicates: {text}, first {shown(samples[i].path)} ~ {shown(samples[j].path)}"
        for pairs, text in kinds
        for i, j in pairs[:1]
    ]
    return lines or ["near-duplicates: none"]


def _issues(train: Sequence[Sample], issues: Issues) -> list[str]:
    """Describe the issues, with the first image of each."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample, words in zip(train, issues.images, strict=True):
        for word in words:
            found[word].append(sample)
    parts = [
        f"{word} {len(own)} (first {shown(own[0].path)})" for word, own in sorted(found.items())
    ]
    lines = [f"issues of training images: {', '.join(parts) or 'none'}"]
    for name, word in issues.sets:
        many = f"most training images of {shown(name)}"
        lines.append(f"{word}: {many}, so only those that stand out are marked")
    return lines
