from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING

from meds_plugin.review.build import rebuild_review
from meds_plugin.review.parts import PART
from meds_plugin.review.store import load_review_images
from meds_plugin.utils.atomic import write_json
from tests.made_up import write_run
from tests.meds_plugin.review.made_up import HOSTILE, element, make_run, page_data

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_holds_the_images_of_the_run_in_the_rankings_order(tmp_path: Path) -> None:
    names = [f"{place * 7 % 300:03d}.png" for place in range(300)]
    run = make_run(tmp_path / "run", names, categories=("nut", "bolt"))
    page = rebuild_review(run).read_text("ascii")
    found = json.loads(element(page, "data"))
    assert found["path"] == names
    assert found["categories"] == ["bolt", "nut"]
    assert found["category"][:3] == [1, 0, 1]
    assert found["score"] == sorted(found["score"], reverse=True)
    assert found["thresholds"] == [0.5, 0.5]
    assert found["probability"] is None
    images = load_review_images(run, 300)
    assert images is not None
    assert images.heatmaps is not None
    place = sorted(names).index(names[270])
    part = element(page, f"part-{270 // PART}")
    first = 270 - 270 % PART
    start = sum(found["bytes"][first:270])
    data = base64.b64decode(part[start : start + found["bytes"][270]])
    assert data == images.thumbnails[place].data
    maps = base64.b64decode(part[sum(found["bytes"][first : first + PART]) :])
    assert maps[(270 - first) * 784 :][:784] == images.heatmaps.values[place].tobytes()


def test_no_name_can_end_or_begin_anything(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", [f"{place}.png" for place in range(len(HOSTILE))])
    hostile = make_run(tmp_path / "</script><b>", HOSTILE, categories=("</script><i>",))
    pages = [rebuild_review(run).read_text("ascii") for run in (plain, hostile)]
    tags = [re.findall(r"</?[a-z!]+", page.lower()) for page in pages]
    assert tags[0] == tags[1]
    assert json.loads(element(pages[1], "data"))["path"] == list(HOSTILE)


def test_the_policy_allows_the_pages_own_script_and_style_only(tmp_path: Path) -> None:
    page = rebuild_review(make_run(tmp_path / "run", ["a.png"])).read_text("ascii")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert inline is not None
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"(?:src|href)=", page.replace("-src", ""))


def test_many_images_lie_in_parts_beside_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", [f"{place:03d}.png" for place in range(PART + 1)])
    whole = rebuild_review(run).read_text("ascii")
    assert not (run / "review_files").exists()
    monkeypatch.setattr("meds_plugin.review.page._ONE_FILE", 0)
    page = rebuild_review(run).read_text("ascii")
    assert 'id="part-' not in page
    assert "'strict-dynamic'; style-src" in page  # the page's own script may load others
    assert "strict-dynamic" not in whole
    key = json.loads(element(page, "data"))["id"]
    for number in range(2):
        part = (run / "review_files" / f"part-{number:05d}.js").read_text("ascii")
        assert part == f'reviewPart("{key}",{number},"{element(whole, f"part-{number}")}");\n'


def test_tells_issues_groups_and_neighbours(tmp_path: Path) -> None:
    names = [f"{place}.png" for place in range(8)]
    issues = (("dark", "odd-size"), (), ("blurry",))
    run = make_run(tmp_path / "run", names, issues=issues, duplicates=2, embeddings=True)
    found = page_data(run)
    assert found["issueNames"] == ["blurry", "dark", "odd-size"]
    assert found["issues"][:3] == [0b110, 0, 0b001]
    assert found["duplicates"] == [1, 1, None, None, None, None, None, None]
    assert found["defects"] == [1, None, None, None, 1, None, None, None]
    assert found["nearest"] == [6, 6, 6, 6, 6, 6, 7, 6]
    (run / "embeddings.npz").unlink()
    found = page_data(run)
    assert found["defects"] is found["nearest"] is None


def test_decisions_belong_to_what_was_ranked_not_to_the_folder(tmp_path: Path) -> None:
    one = page_data(make_run(tmp_path / "one", ["a.png", "b.png"]))
    moved = page_data(make_run(tmp_path / "two", ["a.png", "b.png"], probability=True))
    other = page_data(make_run(tmp_path / "three", ["b.png", "a.png"]))
    assert one["id"] == moved["id"] != other["id"]


def test_shows_what_is_known_of_the_contamination(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"], probability=True)
    assert page_data(run)["contamination"] == {}
    estimate = {"mean": {"estimate": 0.1, "low": 0.0, "high": 0.2}, "categories": {}}
    write_json(run / "contamination.json", estimate)
    found = page_data(run)
    assert found["contamination"] == estimate
    assert found["probability"] == [1.0, 0.25]


def test_says_that_the_training_was_cut_short(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png"])
    assert page_data(run)["cutShort"] is None
    made_up = write_run(tmp_path / "other", cut_short="ended early")
    (made_up / "metrics.json").rename(run / "metrics.json")
    assert page_data(run)["cutShort"] == "ended early"


def test_a_category_of_several_views_has_no_threshold_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"])
    selection = (run / "selection.csv").read_text()
    (run / "selection.csv").write_text(selection.replace("wood", "wood/top"))
    assert page_data(run)["thresholds"] == [None]
