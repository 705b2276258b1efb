"""What each format holds, read again by its own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import pytest

from meds_plugin.data.exclude import read_exclude
from meds_plugin.review.exchange.export import FORMATS, export_images
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.review.photos import SIZE, decide, heat, photo_run

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["sub/a b#1?&+%20.png", 'ä,"q" &<x>.png', "f\r\ng.png", "plain.png"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = photo_run(tmp_path, NAMES)
    for name in NAMES:
        heat(run, name, [])
    heat(run, NAMES[1], [(0, 0, 255), (27, 14, 128)])
    return run


@pytest.fixture
def export(run: Path, tmp_path: Path) -> Callable[[str], list[Path]]:
    decisions = decide(tmp_path / "d.csv", {NAMES[0]: "drop:ä <b>", NAMES[3]: "keep"})
    return lambda kind: export_images(run, kind, decisions=decisions).files


def boxes(size: tuple[int, int]) -> list[tuple[float, ...]]:
    """Return the boxes of the second image: left, top, width, height in pixels."""
    width, height = size
    cell = (width / 32, height / 32)
    return [
        (width / 16, height / 16, *cell),
        (width / 16 + 14 * cell[0], height / 16 + 27 * cell[1], *cell),
    ]


def test_label_studio(export: Callable[[str], list[Path]], tmp_path: Path) -> None:
    tasks, config = export("labelstudio")
    content: list[dict[str, Any]] = json.loads(tasks.read_text())
    assert [task["data"]["name"] for task in content] == NAMES
    for task, name in zip(content, NAMES, strict=True):
        link = urlsplit(task["data"]["image"])
        assert link.path == "/data/local-files/"
        assert not link.fragment
        assert parse_qs(link.query) == {"d": [f"photos/{name}"]}
        assert (tmp_path / f"photos/{name}").is_file()
    assert [task["predictions"][0]["score"] for task in content] == [1.0, 0.75, 0.5, 0.25]
    found = content[1]["predictions"][0]["result"]
    values = [r["value"] for r in found]
    sides = [tuple(v[key] for key in ("x", "y", "width", "height")) for v in values]
    assert sides == pytest.approx([pytest.approx(box, abs=1e-3) for box in boxes((100, 100))])
    assert [(r["original_width"], r["original_height"], r["score"]) for r in found] == [
        (*SIZE, 1.0),
        (*SIZE, 0.502),
    ]
    # Controls and words are those of the configuration.
    root = ET.fromstring(config.read_text())  # noqa: S314 - our own
    controls = {tag.get("name"): tag for tag in root}
    used = [r for task in content for a in task.get("annotations", ()) for r in a["result"]]
    for result in [*used, *found]:
        assert controls[result["from_name"]].tag.lower() == result["type"]
        assert controls[result["from_name"]].get("toName") == result["to_name"] == "image"
    assert {"keep", "drop", "suspicious"} <= {tag.get("value") for tag in root.iter()}
    assert [r["value"] for r in used] == [
        {"choices": ["drop"]},
        {"text": ["ä <b>"]},
        {"choices": ["keep"]},
    ]


def test_fiftyone(export: Callable[[str], list[Path]], tmp_path: Path) -> None:
    metadata, samples = export("fiftyone")
    assert json.loads(metadata.read_text())["media_type"] == "image"
    content: list[dict[str, Any]] = json.loads(samples.read_text())["samples"]
    assert [Path(s["filepath"]) for s in content] == [tmp_path / "photos" / n for n in NAMES]
    assert [(s["name"], s["rank"], s["score"]) for s in content][1] == (NAMES[1], 2, 0.75)
    assert [s["tags"] for s in content] == [["drop"], [], [], ["keep"]]
    assert content[0]["note"] == "ä <b>"
    found = content[1]["regions"]["detections"]
    assert [d["bounding_box"] for d in found] == [pytest.approx(box) for box in boxes((1, 1))]
    assert [d["confidence"] for d in found] == [1.0, 0.502]
    # A field may not be null: FiftyOne takes its type from the values.
    assert all(value is not None for s in content for value in s.values())


def test_cvat(export: Callable[[str], list[Path]]) -> None:
    annotations, labels = export("cvat")
    root = ET.fromstring(annotations.read_bytes())  # noqa: S314 - our own
    assert root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("name") for image in images] == NAMES
    assert {(image.get("width"), image.get("height")) for image in images} == {("60", "40")}
    found = [
        [float(box.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr")]
        for box in images[1].findall("box")
    ]
    assert found == [
        pytest.approx((x, y, x + width, y + height), abs=0.02)
        for x, y, width, height in boxes(SIZE)
    ]
    ranked = images[2].find("tag[@label='ranked']")
    assert ranked is not None
    assert ranked.findtext("attribute[@name='rank']") == "3"
    assert ranked.findtext("attribute[@name='selected']") == "false"
    assert [tag.get("label") for tag in root.iter("tag")].count("drop") == 1
    assert images[0].findtext("tag[@label='drop']/attribute") == "ä <b>"
    # Labels and attributes are those that the task is made with.
    known = {
        label["name"]: {each["name"] for each in label["attributes"]}
        for label in json.loads(labels.read_text())
    }
    for element in [*root.iter("box"), *root.iter("tag")]:
        assert {a.get("name") for a in element} <= known[str(element.get("label"))]
    assert {label.findtext("name") for label in root.iter("label")} == known.keys()


def test_coco(export: Callable[[str], list[Path]]) -> None:
    (file,) = export("coco")
    assert (file.parent.name, file.parent.parent.name) == ("annotations", "coco")
    content = json.loads(file.read_text())
    assert [image["file_name"] for image in content["images"]] == NAMES
    assert [image.get("decision") for image in content["images"]] == ["drop", None, None, "keep"]
    found = content["annotations"]
    assert [a["bbox"] for a in found] == [pytest.approx(box, abs=0.01) for box in boxes(SIZE)]
    assert {a["image_id"] for a in found} == {content["images"][1]["id"]}
    assert {a["category_id"] for a in found} == {c["id"] for c in content["categories"]}
    assert [a["score"] for a in found] == [1.0, 0.502]


def test_pycocotools_reads_coco(export: Callable[[str], list[Path]]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    (file,) = export("coco")
    truth = coco.COCO(file)
    scored = truth.loadRes(truth.loadAnns(truth.getAnnIds()))
    assert (len(truth.imgs), [a["score"] for a in scored.anns.values()]) == (4, [1.0, 0.502])


def test_a_table_is_a_file_of_decisions(export: Callable[[str], list[Path]], run: Path) -> None:
    (file,) = export("csv")
    rows = read_rows(file)
    assert [(row["path"], row["rank"]) for row in rows] == [
        (name, str(rank)) for rank, name in enumerate(NAMES, start=1)
    ]
    assert [tuple(box[:4]) for box in json.loads(rows[1]["boxes"])] == [
        pytest.approx(box, abs=0.01) for box in boxes(SIZE)
    ]
    assert read_exclude(file) == {NAMES[0]}
    again = export_images(run, "csv", decisions=file).files[0]
    assert read_rows(again) == rows


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_is_given_loses_nothing(run: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    files = export_images(run, kind, output=out).files
    assert export_images(run, kind, output=out).files == files
    files[0].write_text("labelled by hand")
    with pytest.raises(UserError, match="already exists: give another folder"):
        export_images(run, kind, output=out)
    assert files[0].read_text() == "labelled by hand"
    with pytest.raises(UserError, match="cannot be written"):
        export_images(run, kind, output=tmp_path / "d" / ".." / "run" / "config.yaml")


def test_decisions_must_be_of_the_run(run: Path, tmp_path: Path) -> None:
    decisions = decide(tmp_path / "d.csv", {"x.png": "drop"})
    with pytest.raises(UserError, match=r"--decisions=.* names are not training images"):
        export_images(run, "csv", decisions=decisions)
