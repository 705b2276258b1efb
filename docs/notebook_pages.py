"""Shows a notebook on a page, in place of ``<!-- notebook FILE -->``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["notebook_markdown", "on_page_markdown"]

_ALT = "The figure that the code above draws"
_MARK = re.compile(r"<!-- notebook (\S+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Answer MkDocs with a page's text, the notebook in place of the mark."""
    folder = Path(__file__).parent
    return _MARK.sub(lambda mark: notebook_markdown(folder / mark[1]), markdown)


def notebook_markdown(file: Path) -> str:
    """Return a notebook's texts, code, what the code printed, and its pictures."""
    parts = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            if picture := output.get("data", {}).get("image/png"):
                data = "".join(picture.split())
                parts.append(f'<img alt="{_ALT}" src="data:image/png;base64,{data}">')
    return "\n\n".join(parts)
