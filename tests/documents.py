"""The pages for readers, and what is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGES", "blocks", "prose"]

# By name: README.md, docs/data.md, ...
PAGES: dict[str, Path] = {
    path.relative_to(PROJECT).as_posix(): path
    for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))
}


def blocks(language: str, text: str) -> list[str]:
    """Return the fenced blocks of a language, in order; those inside lists are left out."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
