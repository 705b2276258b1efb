"""Label Studio: tasks with predictions, the labelling configuration, and the way back.

Written against the JSON of Label Studio 1 (``data``, ``predictions``, ``annotations``), as the
classes of label-studio-sdk 2.1 check it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meds_plugin.review.decision_file import Decision
    from meds_plugin.review.exchange.entries import Entries, Entry

__all__ = ["label_studio_advice", "label_studio_answers", "label_studio_files"]

_CONFIG = """\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <Choices name="decision" toName="image" choice="single-radio" showInline="true">
    <Choice value="keep" hotkey="k"/>
    <Choice value="drop" hotkey="d"/>
  </Choices>
  <TextArea name="note" toName="image" rows="1" maxSubmissions="1" placeholder="note"/>
  <RectangleLabels name="regions" toName="image">
    <Label value="suspicious" background="#d62728"/>
  </RectangleLabels>
</View>
"""


def label_studio_files(found: Entries) -> dict[str, str]:
    """Return the files of an import by name: a task an image, and the labelling configuration.

    A task's ``data`` holds what the ranking says, its prediction the regions; a decision becomes an
    annotation. Scores of predictions must be in [0, 1]: they fall evenly with the rank from 1.
    """
    tasks = [_task(found, entry) for entry in found.entries]
    return {"tasks.json": json.dumps(tasks, indent=1), "config.xml": _CONFIG}


def label_studio_advice(found: Entries) -> str:
    """Say how Label Studio gets at the files: it serves what lies in a folder of its root."""
    return (
        "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={found.folder.parent}, create a project with "
        f"config.xml, add the storage 'Local files' with the path {found.folder} "
        "(do not sync it), and import tasks.json"
    )


def label_studio_answers(content: Any) -> Iterator[tuple[str | None, str, str]]:
    """Yield the name, decision and note of each annotation of an export as JSON.

    A task without an annotation that decides gives one empty decision; skipped annotations count
    as none. The name is ``None`` where the task was not made by `label_studio_files`.
    """
    for task in content:
        name = task["data"].get("name")
        given = [a["result"] for a in task.get("annotations", ()) if not a.get("was_cancelled")]
        chosen = [
            (word, " ".join(_values(result, "note", "text")))
            for result in given
            for word in _values(result, "decision", "choices")
        ]
        for word, note in chosen or [("", "")]:
            yield name, word, note


def _task(found: Entries, entry: Entry) -> dict[str, Any]:
    # Relative to the document root, which is the folder above; the query is decoded once.
    path = quote(f"{found.folder.name}/{found.relative(entry)}".lstrip("/"))
    task: dict[str, Any] = {
        "data": {"image": f"/data/local-files/?d={path}"} | entry.facts(),
        "predictions": [
            {
                "model_version": found.run,
                "score": 1 - (entry.rank - 1) / found.count,
                "result": [_rectangle(entry, number) for number in range(len(entry.regions))],
            }
        ],
    }
    if entry.decision is not None:
        task["annotations"] = [{"result": _decided(entry.decision)}]
    return task


def _rectangle(entry: Entry, number: int) -> dict[str, Any]:
    region = entry.regions[number]
    sides = {key: round(100 * getattr(region, key), 4) for key in ("width", "height")}
    return _result("regions", "rectanglelabels", f"region-{number}") | {
        "original_width": entry.width,
        "original_height": entry.height,
        "image_rotation": 0,
        "score": region.score,
        "value": {
            "x": round(100 * region.left, 4),
            "y": round(100 * region.top, 4),
            **sides,
            "rotation": 0,
            "rectanglelabels": ["suspicious"],
        },
    }


def _decided(decision: Decision) -> list[dict[str, Any]]:
    result = [_result("decision", "choices") | {"value": {"choices": [decision.word]}}]
    if decision.note:
        result.append(_result("note", "textarea") | {"value": {"text": [decision.note]}})
    return result


def _result(control: str, kind: str, key: str | None = None) -> dict[str, Any]:
    return {"id": key or control, "from_name": control, "to_name": "image", "type": kind}


def _values(result: list[dict[str, Any]], control: str, key: str) -> list[str]:
    """Return what an annotation says by one control of the configuration."""
    return [word for r in result if r.get("from_name") == control for word in r["value"][key]]
