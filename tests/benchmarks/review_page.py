"""How fast the review page opens and scrolls, and the memory that it takes, in real browsers.

    python -m tests.benchmarks.review_page --images 50000 --browser chromium firefox

makes up a run, builds its page, opens it from disk, and scrolls: views in a row, then jumps. A cell
that still lacks its picture when the view has settled counts as blank.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meds_plugin.review.build import rebuild_review
from tests.meds_plugin.review.browser import browser
from tests.meds_plugin.review.firefox import firefox
from tests.meds_plugin.review.made_up import make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[[str], Any]

_BLANK = """
const scroll = document.getElementById("scroll");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
function blank() {
  const box = scroll.getBoundingClientRect();
  const cells = [...document.querySelectorAll(".tile")].filter((tile) => {
    const { top, bottom } = tile.getBoundingClientRect();
    return bottom > box.top && top < box.bottom;
  });
  const without = cells.filter((tile) => {
    const image = tile.querySelector("img");
    return !(image && image.complete && image.naturalWidth);
  });
  return cells.length ? without.length : 1;
}
async function filled() {
  const start = performance.now();
  while (blank() && performance.now() - start < 5000) await pause(10);
  return performance.now() - start;
}
"""
_OPENED = f"(async () => {{ {_BLANK} await filled(); return blank(); }})()"
_SCROLL = f"""(async () => {{ {_BLANK}
  const found = {{ blank: 0, slowest: 0, tiles: 0 }};
  for (let step = 0; step < STEPS; step += 1) {{
    const most = scroll.scrollHeight - scroll.clientHeight;
    if (JUMPS) scroll.scrollTop = ((step * 0.618034) % 1) * most;
    else scroll.scrollTop += 0.8 * scroll.clientHeight;
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    await pause(SETTLE);
    found.blank += blank();
    await filled();
    found.slowest = Math.max(found.slowest, performance.now() - start - SETTLE);
    found.tiles = Math.max(found.tiles, document.querySelectorAll(".tile").length);
  }}
  return found;
}})()"""
_ORDER = """(() => {
  const order = document.getElementById("order"), start = performance.now();
  order.value = "NAME";
  order.dispatchEvent(new Event("change"));
  return performance.now() - start;
})()"""


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[tuple[Callable[[str], object], Ask, int]]:
    """Yield what opens an address, what answers an expression, and the process at the top."""
    with browser(folder) as driver:
        driver.set_script_timeout(600)

        def ask(expression: str) -> Any:
            script = f"Promise.resolve({expression}).then(arguments[arguments.length - 1]);"
            return driver.execute_async_script(script)

        yield driver.get, ask, driver.service.process.pid


@contextlib.contextmanager
def fox(folder: Path) -> Iterator[tuple[Callable[[str], object], Ask, int]]:
    """Yield the same of Firefox."""
    with firefox() as driver:
        driver.resize(1280, 860)
        yield driver.get, driver.ask, driver.process


def megabytes(top: int) -> float:
    """Return the memory of a process and all below it, shared pages in proportion."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            parents[int(status.parent.name)] = int(fields["PPid"])
    family = {top}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for each in family:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total / 1024


def measure(name: str, page: Path) -> None:
    """Open and scroll a page in one browser; print what that took."""
    start_browser = {"chromium": chromium, "firefox": fox}[name]
    with tempfile.TemporaryDirectory() as folder, start_browser(Path(folder)) as (get, ask, top):
        get("about:blank")
        before = megabytes(top)
        start = time.perf_counter()
        get(page.as_uri())
        left = ask(_OPENED)
        print(f"{name}: first pictures after {time.perf_counter() - start:.2f} s, {left} blank")
        for order in (None, "name"):
            if order is not None:
                print(f"{name}: sorted by name in {ask(_ORDER.replace('NAME', order)):.0f} ms")
            for jumps, steps, settle in ((0, 150, 100), (1, 60, 300)):
                script = _SCROLL.replace("STEPS", str(steps)).replace("SETTLE", str(settle))
                found = ask(script.replace("JUMPS", str(jumps)))
                kind = "jumps" if jumps else "views in a row"
                print(
                    f"{name}: {steps} {kind}, {settle} ms each: {found['blank']} blank cells, "
                    f"slowest view filled {found['slowest']:.0f} ms later, "
                    f"at most {found['tiles']} tiles in the document, "
                    f"{megabytes(top) - before:.0f} MB more than an empty page"
                )


def main() -> None:
    """Make up a run and measure its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--browser", nargs="+", default=["chromium"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [f"camera {i % 5}/{i * 7919 % given.images:05d}.png" for i in range(given.images)]
        run = make_run(
            Path(folder) / "run",
            names,
            categories=("nut", "bolt"),
            probability=True,
            issues=((), ("dark",), ("blurry", "near-duplicate"), ()),
            duplicates=given.images // 10,
            embeddings=True,
        )
        start = time.perf_counter()
        page = rebuild_review(run)
        seconds = time.perf_counter() - start
        parts = [file.stat().st_size for file in run.glob("review_files/*")]
        sizes = f"page {page.stat().st_size / 1e6:.1f} MB, parts {sum(parts) / 1e6:.0f} MB"
        print(f"{given.images} images: built in {seconds:.1f} s, {sizes} in {len(parts)} files")
        for name in given.browser:
            measure(name, page)


if __name__ == "__main__":
    main()
