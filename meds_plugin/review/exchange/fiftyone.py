"""FiftyOne: a data set with all fields and regions, and decisions made by tagging.

Written against the JSON of FiftyOne 1.22's ``LegacyFiftyOneDataset`` (``metadata.json``,
``samples.json``), which ``FiftyOneDataset`` also takes. Of the formats that can be written without
FiftyOne and its database, it is the one that keeps every field and score: a
``FiftyOneImageDetectionDataset`` has no fields of an image, and ``FiftyOneDataset``'s own layout is
a dump of the database, whose schema changes with versions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.review.exchange.entries import Entries, Entry
    from meds_plugin.review.exchange.regions import Region

__all__ = ["fiftyone_advice", "fiftyone_answers", "fiftyone_files"]

_TAGS = ("keep", "drop")


def fiftyone_files(found: Entries) -> dict[str, str]:
    """Return the files of a data set by name; samples have their decision as a tag."""
    samples = [_sample(entry) for entry in found.entries]
    metadata = {"name": found.run.replace("/", "_"), "media_type": "image", "info": {}}
    return {
        "metadata.json": json.dumps(metadata, indent=1),
        "samples.json": json.dumps({"samples": samples}, indent=1),
    }


def fiftyone_advice(found: Entries) -> str:
    """Say how the data set is opened, and how it comes back."""
    return (
        f"in Python: dataset = fiftyone.Dataset.from_dir({str(found.output)!r}, "
        "dataset_type=fiftyone.types.FiftyOneDataset); tag samples keep or drop; then "
        "dataset.export('DIR', dataset_type=fiftyone.types.FiftyOneDataset, export_media=False)"
    )


def fiftyone_answers(content: Any) -> Iterator[tuple[str | None, str, str]]:
    """Yield the name, decision and note of each sample of an exported data set.

    Decisions are the tags ``keep`` and ``drop``, and the label or text of a field ``decision``. A
    sample with several yields each; one without gives one empty decision.
    """
    for sample in content["samples"]:
        field = sample.get("decision")
        label = field.get("label") if isinstance(field, dict) else field
        words = [tag for tag in sample.get("tags") or () if tag in _TAGS]
        words += [label] if label else []
        for word in words or [""]:
            yield sample.get("name"), word, sample.get("note") or ""


def _sample(entry: Entry) -> dict[str, Any]:
    metadata = {"_cls": "ImageMetadata", "width": entry.width, "height": entry.height}
    regions = [_detection(region) for region in entry.regions]
    sample = {
        "filepath": str(entry.file),
        "tags": [entry.decision.word] if entry.decision else [],
        "metadata": metadata,
        **entry.facts(),
        "regions": {"_cls": "Detections", "detections": regions},
    }
    if entry.decision and entry.decision.note:
        sample["note"] = entry.decision.note
    return sample


def _detection(region: Region) -> dict[str, Any]:
    return {
        "_cls": "Detection",
        "label": "suspicious",
        "bounding_box": [region.left, region.top, region.width, region.height],
        "confidence": region.score,
    }
