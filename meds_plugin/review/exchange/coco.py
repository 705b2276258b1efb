"""COCO: regions as detections with scores, what the ranking says as further keys of an image.

Written against the format of object detection of 2017, as pycocotools 2.0 reads it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meds_plugin.review.exchange.entries import Entries

__all__ = ["coco_advice", "coco_files"]


def coco_files(found: Entries) -> dict[str, str]:
    """Return the file by its name, in the folder that readers look for.

    Names of images are paths below the folder that all of them lie in.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(found.entries, start=1):
        size = {"width": entry.width, "height": entry.height}
        image = {"id": number, "file_name": found.relative(entry)} | size | entry.facts()
        if entry.decision:
            image |= {"decision": entry.decision.word, "note": entry.decision.note}
        images.append(image)
        for region in entry.regions:
            left, top, width, height = region.pixels(entry.width, entry.height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [left, top, width, height],
                    "area": round(width * height, 2),
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": region.score,
                }
            )
    content = {
        "info": {"description": found.run},
        "licenses": [],
        "categories": [{"id": 1, "name": "suspicious", "supercategory": "anomaly"}],
        "images": images,
        "annotations": annotations,
    }
    return {"annotations/instances_default.json": json.dumps(content, indent=1)}


def coco_advice(found: Entries) -> str:
    """Say where the images are."""
    return f"file names are relative to {found.folder}"
