"""Says before training which masks look wrong, as they were read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.check import image_key
from meds_plugin.data.faults import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meds_plugin.data.check import CheckReport, MaskFacts
    from meds_plugin.data.samples import Sample

__all__ = ["mask_notes"]

_NEARLY_FULL = 0.9
# An inverted mask has the background of its image as the defect, which most defects do not reach.
_INVERTED, _INVERTED_BORDER = 0.5, 0.75


def mask_notes(samples: Iterable[Sample], report: CheckReport) -> list[str]:
    """Describe the masks that are empty, nearly full, inverted, or of uncertain meaning.

    Args:
        samples: The images; masks of normal ones do not count, and each file of a mask does.
        report: Their check.

    Returns:
        A line for each finding, with the number of masks and the first of them.
    """
    facts: dict[str, MaskFacts] = {}
    for sample in samples:
        for part in sample.mask_parts if sample.is_anomaly else ():
            if (found := report.masks.get(image_key(part))) is not None:
                name = str(part) if isinstance(part, Path) else sample.path
                facts.setdefault(shown(name), found)
    findings: dict[str, list[str]] = {}
    for name, mask in facts.items():
        for finding in filter(None, (_looks(mask), mask.doubt)):
            findings.setdefault(finding, []).append(name)
    notes = [
        f"{len(names)} of {len(facts)} masks {finding}, first {names[0]}"
        for finding, names in findings.items()
    ]
    if notes:
        notes.append("data.mask_values=nonzero|half|alpha|inverted reads all masks in that way")
    return notes


def _looks(mask: MaskFacts) -> str | None:
    if not mask.share:
        return "are empty"
    if _INVERTED < mask.share < 1 and mask.border > _INVERTED_BORDER:
        return "look inverted (their border is defective)"
    if mask.share > _NEARLY_FULL:
        return f"cover over {_NEARLY_FULL:.0%} of their image"
    return None
