"""Orders images by category, and notes what a category lacks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import natural_key
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.data.samples import Sample, Split

__all__ = ["category_notes", "sort_by_category"]


def sort_by_category(found: Split, categories: Sequence[str], *, source: str, masks: str) -> Split:
    """Return the images of some categories in order, with notes on what is missing.

    Args:
        found: The images in any order, and the problems.
        categories: The categories, in order.
        source: Where the images come from, as on the command line, for messages.
        masks: Where masks would come from, for notes.

    Returns:
        The images by category, and by name within each.

    Raises:
        UserError: If a category has no training image, or all are labelled as defective.
    """
    split = replace(found, train=[], test=[], notes=list(found.notes))
    trains, tests = _by_category(found.train), _by_category(found.test)
    notes: list[str] = []
    for name in categories:
        train, test = trains[name], tests[name]
        if not train:
            raise UserError(_nothing_to_train_on(found, name, test, source))
        if all(sample.is_anomaly for sample in train):
            raise UserError(_only_defects(name, train, source))
        split.train.extend(train)
        split.test.extend(test)
        notes += [*category_notes(name, test, masks), *_one_sided(name, test)]
    split.notes.extend(notes if split.test else ["no test images: no test metrics"])
    return split


def category_notes(category: str, test: Sequence[Sample], masks: str) -> list[str]:
    """Return which metrics a category cannot have and why, one line each.

    Args:
        category: Its name.
        test: Its test images.
        masks: What is missing if no test image has a mask.
    """
    if not test:
        return [f"category {category}: no test images: no metrics for it"]
    defects = [sample for sample in test if sample.is_anomaly]
    bare = sum(sample.mask is None for sample in defects)
    if not bare:
        return []
    what = f"no {masks}" if bare == len(defects) else f"{bare} of {len(defects)} masks are missing"
    return [f"category {category}: {what}: pixel metrics are skipped"]


def _by_category(samples: Sequence[Sample]) -> defaultdict[str, list[Sample]]:
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: [natural_key(part) for part in s.path.split("/")]):
        found[sample.category].append(sample)
    return found


def _one_sided(category: str, test: Sequence[Sample]) -> list[str]:
    """Say which metrics are skipped because all test images are of one kind."""
    kinds = {sample.is_anomaly for sample in test}
    if kinds == {True}:
        return [f"category {category}: no normal test images: image metrics are skipped"]
    if kinds == {False}:
        return [f"category {category}: no defective test images: metrics are skipped"]
    return []


def _nothing_to_train_on(found: Split, category: str, test: Sequence[Sample], source: str) -> str:
    message = f"{source}: category {shown(category)} has no training images"
    if test:
        message += f", all {len(test)} are test images"
    if found.problems:
        count = f"{len(found.problems)} cannot be used"
        message += f"; {count}, the first because {found.problems[0].reason}"
    return f"{message}; add some, or leave it out with data.categories=[...]"


def _only_defects(category: str, train: Sequence[Sample], source: str) -> str:
    words = dict.fromkeys(shown(sample.label or sample.defect or "") for sample in train)
    some = first_few(list(words))
    return (
        f"{source}: category {shown(category)}: the labels of all {len(train)} training images "
        f"({some}) are taken as defects; name the word for normal, as in data.normal=WORD, "
        "correct them, or rename a column that holds something else"
    )
