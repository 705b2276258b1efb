"""What other tools answer, in their own formats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.review.decision_file import Decision, read_decisions
from meds_plugin.review.exchange.answers import import_decisions
from meds_plugin.review.exchange.export import export_images
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.photos import decide, photo_run

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["sub/a b#1?&+%20.png", 'ä,"q" &<x>.png', "f\r\ng.png", "plain.png"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return photo_run(tmp_path, NAMES)


def read(run: Path, file: Path) -> dict[str, Decision]:
    return read_decisions(file, read_ranked_run(run).images)


def label_studio(content: Any, tmp_path: Path) -> Path:
    """Write tasks as Label Studio exports them: with numbers, who annotated, and when."""
    for number, task in enumerate(content, start=1):
        about = {"completed_by": 1, "lead_time": 3.1, "ground_truth": False, "was_cancelled": False}
        given = [about | annotation for annotation in task.get("annotations", [])]
        task |= {"id": number, "annotations": given, "drafts": [], "file_upload": "tasks.json"}
    file = tmp_path / "project-1-at-2026.json"
    file.write_text(json.dumps(content))
    return file


def choose(word: str, note: str = "") -> dict[str, Any]:
    result: list[dict[str, Any]] = [
        {"from_name": "decision", "type": "choices", "value": {"choices": [word]}},
        # Boxes are corrected by hand on the way.
        {"from_name": "regions", "type": "rectanglelabels", "value": {"x": 1, "y": 2}},
    ]
    if note:
        result.append({"from_name": "note", "type": "textarea", "value": {"text": [note]}})
    return {"result": result}


def fiftyone(content: Any, folder: Path) -> Path:
    """Write samples as FiftyOne exports its database."""
    for number, sample in enumerate(content["samples"]):
        sample |= {"_id": {"$oid": f"{number:024x}"}, "_media_type": "image", "_rand": 0.5}
        sample["created_at"] = {"$date": "2026-01-01T00:00:00Z"}
    folder.mkdir()
    (folder / "samples.json").write_text(json.dumps(content))
    (folder / "metadata.json").write_text('{"version": "1.22.1"}')
    return folder


def test_label_studio_and_back(run: Path, tmp_path: Path) -> None:
    before = decide(tmp_path / "d.csv", {NAMES[0]: "drop:ä <b>", NAMES[2]: "keep"})
    tasks = export_images(run, "labelstudio", decisions=before).files[0]
    content = json.loads(tasks.read_text())
    content[1]["annotations"] = [choose("drop", " scratch ")]
    content[3]["annotations"] = [choose("drop") | {"was_cancelled": True}]
    done = import_decisions(run, label_studio(content, tmp_path))
    assert read(run, done.file) == {
        **read(run, before),
        NAMES[1]: Decision(drop=True, note="scratch"),
    }
    assert (done.file, done.decided) == (run / "decisions.csv", 3)
    assert (done.unknown, done.missing, done.conflicts) == ([], [NAMES[3]], [])


def test_fiftyone_and_back(run: Path, tmp_path: Path) -> None:
    before = decide(tmp_path / "d.csv", {NAMES[0]: "drop:ä <b>", NAMES[2]: "keep"})
    samples = export_images(run, "fiftyone", decisions=before).files[1]
    content = json.loads(samples.read_text())
    content["samples"][1]["tags"] = ["blurred", "keep"]
    content["samples"][3]["tags"] = ["blurred"]
    folder = fiftyone(content, tmp_path / "exported")
    done = import_decisions(run, folder)
    assert read(run, done.file) == {**read(run, before), NAMES[1]: Decision(drop=False)}
    assert done.missing == [NAMES[3]]
    assert import_decisions(run, folder / "samples.json").file == done.file


def test_fiftyones_label_field(run: Path, tmp_path: Path) -> None:
    content = json.loads(export_images(run, "fiftyone").files[1].read_text())
    content["samples"][0]["decision"] = {"_cls": "Classification", "label": "drop"}
    content["samples"][1]["decision"] = "keep"
    content["samples"][2]["decision"] = None
    done = import_decisions(run, fiftyone(content, tmp_path / "exported"))
    assert read(run, done.file) == {
        NAMES[0]: Decision(drop=True),
        NAMES[1]: Decision(drop=False),
    }


def test_what_is_unknown_or_contradictory_is_named_and_decides_nothing(
    run: Path, tmp_path: Path
) -> None:
    content = json.loads(export_images(run, "labelstudio").files[0].read_text())
    content[0]["annotations"] = [choose("drop"), choose("keep")]
    content[1]["annotations"] = [choose("drop", "one"), choose("drop", "two")]
    content[2]["data"]["name"] = "of another run.png"
    content[2]["annotations"] = [choose("drop")]
    done = import_decisions(run, label_studio(content, tmp_path), output=tmp_path / "out.csv")
    assert read(run, done.file) == {NAMES[1]: Decision(drop=True, note="one; two")}
    assert done.unknown == ["of another run.png"]
    assert done.missing == [NAMES[2], NAMES[3]]
    assert done.conflicts == [NAMES[0]]


def test_an_earlier_file_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (run / "decisions.csv").write_text("path,decision\n")
    content = json.loads(export_images(run, "labelstudio").files[0].read_text())
    assert import_decisions(run, label_studio(content, tmp_path)).file == run / "decisions2.csv"
    assert (run / "decisions.csv").read_text() == "path,decision\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is neither Label Studio's JSON"),
        ("3", "is neither"),
        ("{}", "is neither .*samples"),
        ('[{"image": "a.png"}]', "is neither .*data"),
        ('[{"data": {"image": "a.png"}}]', "image 1 has no name from an export"),
        ('{"samples": [{"filepath": "a.png"}]}', "image 1 has no name from an export"),
        ('{"samples": [{"name": "plain.png", "decision": "maybe"}]}', "maybe is unknown"),
        ('{"samples": [{"name": "plain.png", "decision": 3}]}', "3 is unknown"),
        ('{"samples": [{"name": 3}]}', "image 1 has no name from an export"),
        ('{"samples": [{"name": "plain.png", "tags": 3}]}', "is neither"),
        ("[[1]]", "is neither"),
    ],
)
def test_other_files_are_refused(run: Path, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(UserError, match=says) as refused:
        import_decisions(run, file)
    assert len(str(refused.value).splitlines()) == 1
    assert "--import=" in str(refused.value)
    with pytest.raises(UserError, match="cannot be read"):
        import_decisions(run, tmp_path)
