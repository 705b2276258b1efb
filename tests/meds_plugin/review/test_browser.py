"""The page in a real browser: what a reviewer does, from opening it to the exclude list."""

from __future__ import annotations

import csv
import time
from typing import TYPE_CHECKING, Any

import pytest

from meds_plugin.data.exclude import read_exclude
from meds_plugin.review.build import rebuild_review
from meds_plugin.review.decisions import apply_decisions
from meds_plugin.review.page import write_page
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.store import load_review_images
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.atomic import write_csv, write_json
from tests.meds_plugin.review.browser import browser
from tests.meds_plugin.review.firefox import firefox
from tests.meds_plugin.review.made_up import HOSTILE, THRESHOLD, make_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

NAMES = (*HOSTILE, *(f"shift {i % 3}/{i:03d}.png" for i in range(58)))


class Page:
    """What a reviewer sees and does."""

    def __init__(self, driver: Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, run: Path) -> None:
        self.driver.get((run / "review.html").as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def choose(self, name: str, value: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.driver.find_element("id", name)).select_by_value(value)

    def text(self, selector: str) -> str:
        return self.driver.find_element("css selector", selector).text

    def tiles(self, part: str = "title") -> list[str]:
        """Return an attribute of every tile in the document, by place."""
        script = """[...document.querySelectorAll('.tile')]
            .sort((a, b) => a.dataset.place - b.dataset.place).map((tile) => tile[arguments[0]])"""
        found: list[str] = self.ask(script, part)
        return found

    def current(self) -> str:
        return self.text(".where bdi")

    def download(self) -> Path:
        file = self.downloads / "decisions.csv"
        file.unlink(missing_ok=True)
        self.click("#download")
        for _ in range(200):
            if file.is_file():
                return file
            time.sleep(0.05)
        msg = "nothing was downloaded"
        raise AssertionError(msg)

    def take(self, file: Path) -> str:
        """Import a file; return what is said about it."""
        self.driver.find_element("id", "import").send_keys(str(file))
        for _ in range(100):
            if file.name in self.text("#notice-text"):
                break
            time.sleep(0.05)
        return self.text("#notice-text")

    def headings(self) -> list[str]:
        found: list[str] = self.ask("[...document.querySelectorAll('.rule')].map(e => e.innerText)")
        return found

    def complaints(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    downloads = tmp_path_factory.mktemp("downloads")
    with browser(downloads) as driver:
        yield Page(driver, downloads)


@pytest.fixture(autouse=True)
def _empty_storage(page: Page) -> Iterator[None]:
    yield
    page.ask("localStorage.clear()")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = make_run(tmp_path / "run", NAMES, categories=("nut", "bolt"), probability=True)
    rebuild_review(made)
    return made


def test_shows_the_most_suspicious_first_and_sorts_and_filters(page: Page, run: Path) -> None:
    page.open(run)
    first = page.tiles()
    assert first[len(HOSTILE) :][:3] == ["shift 0/000.png", "shift 1/001.png", "shift 2/002.png"]
    assert page.text("#shown") == "64 shown"
    assert not page.driver.find_elements("css selector", ".rule")  # the categories differ
    page.choose("order", "ascending")
    assert page.tiles()[0] == NAMES[-1]
    page.choose("order", "name")
    page.choose("category", "0")
    shown = page.tiles()
    assert page.text("#shown") == "32 shown"
    assert {name for name in shown if name.startswith("shift")} <= set(NAMES[1::2])
    assert page.complaints() == []
    assert page.ask("performance.getEntriesByType('resource').filter(e => e.name[4] != ':')") == []


def test_draws_a_line_where_the_threshold_falls(page: Page, run: Path) -> None:
    page.open(run)
    assert page.text("#advice") == "choose a category to see its threshold"
    page.choose("category", "1")
    assert page.text("#advice") == ""
    for order, above, below in (
        ("descending", "not selected", "selected"),
        ("ascending", "selected", "not selected"),
    ):
        page.choose("order", order)
        line = page.text(".rule")
        assert line.startswith(f"selection threshold {THRESHOLD}")
        assert above in line.split("above")[0]
        assert below in line.split("above")[1]
        ends = page.ask(
            """(() => { const line = document.querySelector('.rule').getBoundingClientRect();
            return [...document.querySelectorAll('.tile')].map((tile) =>
              [tile.getBoundingClientRect().bottom <= line.top + 8,
               tile.querySelector('.state').textContent === arguments[0]]); })()""",
            above,
        )
        assert [over for over, _ in ends] == [is_above for _, is_above in ends]
        assert len({over for over, _ in ends}) == 2


def test_is_driven_by_the_keyboard_alone(page: Page, run: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(run)
    page.press("d", "k", "d")
    assert page.text("#progress").startswith("reviewed 3 of 64 · 2 dropped, 1 kept")
    marks = page.ask("[...document.querySelectorAll('.mark')].map((mark) => mark.textContent)")
    assert marks[:4] == ["✕ drop", "✓ keep", "✕ drop", ""]
    page.press("u")
    assert page.text("#progress").startswith("reviewed 2 of 64 · 1 dropped, 1 kept")
    assert "rank 3" in page.text(".where")
    page.press(Keys.HOME, "n")
    assert "rank 3" in page.text(".where")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    columns = int(page.ask("document.getElementById('grid').getAttribute('aria-colcount')"))
    assert f"rank {2 + columns}" in page.text(".where")
    focused = page.ask("document.activeElement.querySelector('.unseen').textContent")
    assert focused.startswith(f"rank {2 + columns}, score")
    page.press(Keys.END)
    assert "rank 64" in page.text(".where")
    page.press("f")
    assert page.text("#shown") == "62 shown"
    page.press(Keys.HOME, "d")
    assert page.text("#shown") == "61 shown"
    assert "rank 4" in page.text(".where")
    page.press("f", "h")
    assert page.ask("getComputedStyle(document.querySelector('.tile canvas')).opacity") == "1"
    page.press("h", Keys.ENTER)
    assert page.ask("document.getElementById('large').open")
    assert page.ask("document.querySelectorAll('#large img').length") == 2
    page.press("k")
    assert "5 of 64" in page.text("#large-details")
    page.press(Keys.ESCAPE)
    assert page.complaints() == []


def test_decisions_outlive_a_reload_and_come_back_as_a_list(page: Page, run: Path) -> None:
    page.open(run)
    left = page.text("#progress b:last-child")
    for place in range(7):
        page.press("d" if place % 2 == 0 else "k")
    assert float(page.text("#progress b:last-child")) < float(left)
    rebuild_review(run)
    page.open(run)
    assert page.text("#progress").startswith("reviewed 7 of 64 · 4 dropped, 3 kept")
    file = page.download()
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.reader(text))
    assert rows[0] == ["path", "category", "decision"]
    want = [[NAMES[i], ("nut", "bolt")[i % 2], ("drop", "keep")[i % 2]] for i in range(7)]
    assert rows[1:] == want
    applied = apply_decisions(run, file)
    assert applied.dropped == 4
    assert read_exclude(applied.file) == {NAMES[0], NAMES[2], NAMES[4], NAMES[6]}

    page.ask("localStorage.clear()")
    page.open(run)
    assert page.text("#progress").startswith("reviewed 0 of 64")
    assert "Imported 7 decisions" in page.take(file)
    assert page.download().read_bytes() == file.read_bytes()
    wrong = file.with_name("wrong.csv")
    wrong.write_text("path,decision\na.png,perhaps\n")
    assert "was not imported" in page.take(wrong)
    assert page.text("#progress").startswith("reviewed 7")


def test_names_that_hold_markup_are_shown_and_do_nothing(page: Page, run: Path) -> None:
    page.open(run)
    assert page.ask("document.title").startswith("Review of ")
    assert page.tiles()[:4] == list(HOSTILE[:4])
    assert page.tiles()[4] == "a,b\\u000d\\u000a=1+1.png"
    assert page.tiles()[5] == "\\u202egnp.exe\\u2028ä 漢.png"
    assert page.ask("document.querySelectorAll('.tile b, #large b').length") == len(page.tiles())
    assert page.ask("document.scripts.length") == 4  # data, script, two parts
    # Even a script that got in could not run.
    page.driver.execute_script(
        """const script = document.createElement('script');
        script.text = "document.title = 'taken'";
        document.body.append(script);"""
    )
    assert page.ask("document.title").startswith("Review of ")
    assert any("Content Security Policy" in line for line in page.complaints())


def test_warns_if_the_browser_cannot_store_decisions(page: Page, run: Path) -> None:
    blocked = "Storage.prototype.setItem = () => { throw new Error('blocked'); }"
    added = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": blocked}
    )
    try:
        page.open(run)
        assert "cannot store your decisions" in page.text("#notice-text")
        page.press("d")
        assert page.text("#progress").startswith("reviewed 1")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_missing_images_have_a_tile_of_their_own(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png"], stored=False)
    rebuild_review(run)
    page.open(run)
    assert page.ask("[...document.querySelectorAll('.gone')].map(e => e.textContent)") == [
        "image cannot be read",
        "image cannot be read",
    ]
    assert not page.driver.find_element("id", "heat").is_displayed()
    assert page.text("#progress b:last-child") == "unknown"
    page.press("d")
    assert page.text("#progress").startswith("reviewed 1 of 2")


def test_what_is_not_known_of_the_contamination_is_not_made_up(page: Page, tmp_path: Path) -> None:
    names = [f"{place}.png" for place in range(8)]
    run = make_run(tmp_path / "run", names, categories=("nut", "bolt"), probability=True)
    ranking = read_rows(run / "ranking.csv")
    for row in ranking:
        row["probability"] = {"nut": "0.25", "bolt": ""}[row["category"]]
    write_csv(run / "ranking.csv", list(ranking[0]), ranking)
    nut = {"estimate": 0.25, "low": 0.1, "high": 0.4, "reason": None}
    bolt = {"estimate": None, "low": None, "high": None, "reason": "too few images"}
    report = {"categories": {"nut": nut, "bolt": bolt}, "all": nut}
    write_json(run / "contamination.json", report)
    rebuild_review(run)
    page.open(run)
    assert page.text("#progress").endswith(
        "expected contaminated images left: 1.0 (unknown in bolt)"
    )
    assert "estimated contamination 25% (10% to 40%)" in page.text("#run")
    assert "contamination unknown for bolt: too few images" in page.text("#run")
    page.press("d", "d")  # one of each category
    assert page.text("#progress").endswith(
        "expected contaminated images left: 0.8 (unknown in bolt)"
    )
    unknown = {"categories": {"nut": {**bolt, "reason": "another one"}, "bolt": bolt}, "all": bolt}
    write_json(run / "contamination.json", unknown)
    rebuild_review(run)
    page.open(run)
    assert "contamination unknown for nut, bolt: see contamination.json" in page.text("#run")


def test_a_second_reviewer_is_heard_and_overwrites_nothing(page: Page, run: Path) -> None:
    page.open(run)
    page.press("d", "k", "d")
    second = run / "second.csv"
    words = ("keep", "keep", "keep", "drop")
    rows = [{"path": NAMES[i], "category": "", "decision": word} for i, word in enumerate(words)]
    write_csv(second, ("path", "category", "decision"), rows)
    said = page.take(second)
    assert said.startswith("Imported 1 decision from second.csv; 1 agree with yours; 2 contradict")
    assert "3 dropped, 1 kept · 2 conflicts" in page.text("#progress")
    marks = page.ask("[...document.querySelectorAll('.mark')].map((mark) => mark.textContent)")
    assert marks[:4] == ["✕ mine · ✓ theirs", "✓ keep", "✕ mine · ✓ theirs", "✕ drop"]
    heard = page.ask("[...document.querySelectorAll('.tile .unseen')].map(e => e.textContent)")
    assert "conflict: the other reviewer says keep" in heard[0]
    page.open(run)  # a conflict outlives the page, too
    page.choose("decision", "conflict")
    assert page.text("#shown") == "2 shown"
    page.click("#keep")
    assert page.text("#shown") == "1 shown"
    page.click(".tile .drop")  # one's own, confirmed
    assert page.text("#empty") == "No images match the filters."
    assert page.text("#progress").startswith("reviewed 4 of 64 · 2 dropped, 2 kept · expected")
    page.click("#undo")
    page.click("#undo")
    assert page.text("#shown") == "2 shown"
    file = page.download()
    assert "2 conflicts not settled" in page.text("#notice-text")
    assert [row["decision"] for row in read_rows(file)] == ["drop", "keep", "drop", "drop"]
    twice = run / "twice.csv"
    write_csv(twice, list(rows[0]), [{**rows[0], "decision": word} for word in ("keep", "drop")])
    assert "it has two decisions on" in page.take(twice)
    assert page.complaints() == []


def test_groups_and_filters_by_what_is_known_of_the_images(page: Page, tmp_path: Path) -> None:
    names = [f"{place:02d}.png" for place in range(24)]
    run = make_run(
        tmp_path / "run",
        names,
        categories=("nut", "bolt"),
        issues=(("<b>dark",), (), ("<b>dark", "blurry")),
        duplicates=4,
        embeddings=True,
    )
    rebuild_review(run)
    page.open(run)
    page.choose("order", "category")
    assert page.headings()[0] == f"bolt · not selected (threshold {THRESHOLD:.4f}) · 6 images"
    page.choose("order", "issue")
    assert page.headings() == ["<b>dark · 16 images", "no issue · 8 images"]
    page.choose("order", "duplicates")
    assert page.headings()[:2] == ["near-duplicates 1 · 2 images", "near-duplicates 2 · 2 images"]
    page.choose("order", "defects")
    assert (
        page.headings()[0] == "similar defects 1 · 4 images"
    )  # of 13 left out, one in four is alike
    assert page.tiles()[:5] == ["00.png", "04.png", "08.png", "12.png", "01.png"]
    assert page.ask("document.querySelector('.chips').innerText.split('\\n')") == [
        "<b>dark",
        "near-duplicate 1",
        "similar defects 1",
    ]
    page.choose("issue", "1")
    assert page.text("#shown") == "8 shown"
    page.choose("issue", "any")
    assert page.text("#shown") == "16 shown"
    page.click(".tile")
    page.press("v")
    assert page.ask("document.getElementById('large').open")
    assert page.text("#large-nearest-name").startswith("nearest normal image: 18.png, rank 19")
    sides = [
        page.ask(f"document.querySelector('#{side} img').getBoundingClientRect().width")
        for side in ("large-plain", "large-nearest")
    ]
    assert sides[0] == pytest.approx(sides[1], abs=1)
    page.press("v")
    assert not page.driver.find_element("id", "large-nearest").is_displayed()
    assert page.complaints() == []


def test_an_updated_order_comes_first_and_is_told(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a.png", "b.png", "c.png"])
    images = load_review_images(run, 3)
    assert images is not None
    told = {"suspicion": [0.1, 0.9, 0.5], "headline": "ordered by 7 decisions <b>"}
    write_page(run, read_ranked_run(run), images, **told)  # type: ignore[arg-type]
    page.open(run)
    assert page.tiles() == ["b.png", "c.png", "a.png"]
    assert page.text("#headline") == "ordered by 7 decisions <b>"
    page.choose("order", "descending")
    assert page.tiles() == ["a.png", "b.png", "c.png"]
    assert not page.driver.find_element("id", "issue").is_displayed()
    page.click(".tile")
    page.press("v")  # without embeddings there is nothing to compare with
    assert not page.ask("document.getElementById('large').open")


def test_fingers_find_large_targets(page: Page, run: Path) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True},
    )
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page.open(run)
        page.press("d")
        small = """[...document.querySelectorAll('button, select, .button')].filter((e) => {
            const { width, height } = e.getBoundingClientRect();
            return e.offsetParent && (width < 44 || height < 44); }).map((e) => e.outerHTML)"""
        assert page.ask(small) == []
        assert page.ask("document.documentElement.scrollWidth") == 360
        page.click("#enlarge")
        assert page.ask(small) == []
        swipe = """for (const [kind, x] of [["touchstart", 300], ["touchend", 100]]) {
            const target = document.getElementById("large-images");
            const touches = [new Touch({ identifier: 1, target, clientX: x, clientY: 200 })];
            target.dispatchEvent(new TouchEvent(kind, { touches, changedTouches: touches }));
        }"""
        page.driver.execute_script(swipe)
        assert "3 of 64" in page.text("#large-details")
        page.click("#large-keep")
        assert page.text("#large-announcement").startswith("keep: ")
        assert page.text("#large-announcement").endswith("2 of 64 reviewed")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


FILLED = """(async () => {
  for (let turn = 0; turn < 100; turn += 1) {
    const images = [...document.querySelectorAll(".tile img")];
    const tiles = document.querySelectorAll(".tile").length;
    if (tiles && images.length === tiles && images.every((each) => each.naturalWidth)) return tiles;
    await new Promise((done) => setTimeout(done, 20));
  }
  return 0;
})()"""
TO_THE_END = "document.getElementById('scroll').scrollTo(0, 1e6)"


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose images lie beside its page."""
    monkeypatch.setattr("meds_plugin.review.page._ONE_FILE", 0)
    run = make_run(tmp_path / "run", [f"{place:03d}.png" for place in range(200)])
    assert rebuild_review(run).stat().st_size < 200_000
    return run


def test_images_beside_the_page_are_loaded_when_they_are_shown(page: Page, big: Path) -> None:
    page.open(big)
    filled = f"const done = arguments[0]; {FILLED}.then(done);"
    assert 0 < page.driver.execute_async_script(filled) < 120
    loaded = "performance.getEntriesByType('resource').length"
    parts = len(list((big / "review_files").iterdir()))
    assert page.ask(loaded) < parts == 7
    page.ask(TO_THE_END)
    assert page.driver.execute_async_script(filled)
    page.press("h")
    assert page.ask("document.querySelectorAll('.tile canvas').length") > 0
    assert page.complaints() == []
    other = big / "review_files" / "part-00006.js"
    other.write_text(other.read_text().replace('reviewPart("', 'reviewPart("x'))
    page.open(big)
    page.ask(TO_THE_END)
    for _ in range(100):
        if page.text("#notice-text"):
            break
        time.sleep(0.05)
    assert "part-00006.js is missing or belongs to another run" in page.text("#notice-text")
    assert page.text(".gone") == "image cannot be read"
    assert page.complaints() == []


def test_markup_that_got_in_loads_no_script(page: Page, big: Path) -> None:
    (big / "review_files" / "taken.js").write_text("document.title = 'taken';")
    intruders = (
        "<script>document.title = 'taken'</script>",
        "<script src='review_files/taken.js'></script>",
        "<img src='x:' onerror=\"document.title = 'taken'\">",
    )
    text = (big / "review.html").read_text()
    for intruder in intruders:
        (big / "review.html").write_text(text.replace("<noscript>", f"{intruder}<noscript>"))
        page.open(big)
        page.press("d")
        assert page.text("#progress").startswith("reviewed 1")
        assert page.ask("document.title").startswith("Review of ")
        assert any("Content Security Policy" in line for line in page.complaints())
        page.ask("localStorage.clear()")


def test_firefox_shows_the_same(big: Path) -> None:
    with firefox() as driver:
        driver.get((big / "review.html").as_uri())
        assert driver.ask(FILLED)
        driver.ask(TO_THE_END)
        assert driver.ask(FILLED)
        driver.press("d", "k")
        progress = driver.ask("document.getElementById('progress').textContent")
        assert progress.startswith("reviewed 2 of 200 · 1 dropped, 1 kept")
        assert driver.ask("document.scripts.length") == 2


def test_stays_usable_with_ten_thousand_images(page: Page, tmp_path: Path) -> None:
    names = [f"camera {i % 5}/{i:05d}.png" for i in range(10_000)]
    run = make_run(tmp_path / "run", names, categories=("nut", "bolt"))
    rebuild_review(run)
    page.open(run)
    assert page.text("#shown") == "10000 shown"
    assert page.ask("document.querySelectorAll('.tile').length") < 300
    script = """
    const fraction = arguments[0], done = arguments[1], scroll = document.getElementById('scroll');
    scroll.scrollTop = fraction * (scroll.scrollHeight - scroll.clientHeight);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const box = scroll.getBoundingClientRect(), rows = [];
      for (let y = box.top + 2; y < box.bottom - 2; y += 20) {
        const tile = document.elementsFromPoint(box.left + 80, y).find((e) => e.matches('.tile'));
        const image = tile && tile.querySelector('img');
        rows.push(Boolean(image && image.complete && image.naturalWidth));
      }
      done([rows.filter(Boolean).length / rows.length, document.querySelectorAll('.tile').length]);
    }));"""
    for fraction in (0.5, 0.031, 0.97, 0.25, 1.0):
        filled, tiles = page.driver.execute_async_script(script, fraction)
        assert filled > 0.85  # the rest are the gaps between rows
        assert tiles < 300
    from selenium.webdriver.common.keys import Keys

    page.press(Keys.END)
    assert page.current() == names[-1]
    page.press("d")
    assert page.text("#progress").startswith("reviewed 1 of 10000")
    assert page.complaints() == []
