"""CVAT for images 1.1: boxes, what the ranking says, and decisions as tags of an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from meds_plugin.review.exchange.entries import Entries, Entry

__all__ = ["cvat_advice", "cvat_files"]

_FACTS = ("name", "category", "rank", "score", "selected", "memory", "distilled", "probability")
# Kind and attributes of each label. CVAT takes annotations of labels that the task has.
_LABELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "suspicious": ("rectangle", ("score",)),
    "ranked": ("tag", _FACTS),
    "keep": ("tag", ("note",)),
    "drop": ("tag", ("note",)),
}


def cvat_files(found: Entries) -> dict[str, str]:
    """Return the files of an import by name: the annotations, and the labels that a task needs.

    Names of images are paths below the folder that all of them lie in.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    for key, text in (
        ("name", found.run),
        ("size", str(len(found.entries))),
        ("mode", "annotation"),
    ):
        ET.SubElement(task, key).text = text
    labels = ET.SubElement(task, "labels")
    for label in _labels():
        element = ET.SubElement(labels, "label")
        ET.SubElement(element, "name").text = label["name"]
        ET.SubElement(element, "type").text = label["type"]
        attributes = ET.SubElement(element, "attributes")
        for attribute in label["attributes"]:
            inner = ET.SubElement(attributes, "attribute")
            for key in ("name", "mutable", "input_type", "default_value", "values"):
                ET.SubElement(inner, key).text = _text(attribute[key])
    for index, entry in enumerate(found.entries):
        size = {"width": str(entry.width), "height": str(entry.height)}
        image = ET.SubElement(
            root, "image", {"id": str(index), "name": found.relative(entry)} | size
        )
        _annotate(image, entry)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return {
        "annotations.xml": f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n',
        "labels.json": json.dumps(_labels(), indent=1),
    }


def cvat_advice(found: Entries) -> str:
    """Say how the annotations get into CVAT."""
    return (
        f"create a task with labels.json (the tab 'Raw' of its labels) and the images below "
        f"{found.folder}, and upload annotations.xml as 'CVAT 1.1'"
    )


def _labels() -> list[dict[str, Any]]:
    plain = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    return [
        {"name": name, "type": kind, "attributes": [{"name": key} | plain for key in keys]}
        for name, (kind, keys) in _LABELS.items()
    ]


def _annotate(image: ET.Element, entry: Entry) -> None:
    for region in entry.regions:
        left, top, width, height = region.pixels(entry.width, entry.height)
        corners = {"xtl": left, "ytl": top, "xbr": left + width, "ybr": top + height}
        sides = {key: f"{value:.2f}" for key, value in corners.items()}
        common = {"label": "suspicious", "source": "auto", "occluded": "0", "z_order": "0"}
        _attributes(ET.SubElement(image, "box", common | sides), {"score": region.score})
    _attributes(ET.SubElement(image, "tag", {"label": "ranked", "source": "auto"}), entry.facts())
    if entry.decision:
        tag = ET.SubElement(image, "tag", {"label": entry.decision.word, "source": "manual"})
        _attributes(tag, {"note": entry.decision.note})


def _attributes(element: ET.Element, values: dict[str, Any]) -> None:
    for key, value in values.items():
        ET.SubElement(element, "attribute", {"name": key}).text = _text(value)


def _text(value: object) -> str:
    """Return a value as CVAT writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "\n".join(value) if isinstance(value, list) else str(value)
