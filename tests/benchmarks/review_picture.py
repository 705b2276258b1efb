"""Photographs the review page of a run on synthetic images, for the documentation.

    python -m tests.benchmarks.review_picture RUN docs/images/review.png

RUN is of ``data=synthetic``; pictures of other data may not be ours to publish.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image

from tests.meds_plugin.review.browser import browser

__all__ = ["main"]


def main(run: Path, output: Path) -> None:
    """Write the top of the page, all heatmaps on, in at most 300 kB."""
    if "synthetic" not in OmegaConf.load(run / "config.yaml").data.source._target_:
        sys.exit(f"{run} is not a run on synthetic images")
    flags = ("--window-size=1240,900", "--allow-file-access-from-files")
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder), flags=flags) as chrome:
        chrome.get((run / "review.html").resolve().as_uri())
        chrome.implicitly_wait(10)
        chrome.find_element("tag name", "body").send_keys("h")
        shot = Path(folder, "shot.png")
        chrome.save_screenshot(str(shot))
        with Image.open(shot) as image:
            image.convert("RGB").quantize(256).save(output, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
