"""Makes a notebook from its script, with what running it prints and draws, for the documentation.

    python -m tests.benchmarks.notebook docs/notebooks/clean_a_folder.py

Needs jupytext (extra ``docs``), nbclient and ipykernel.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["main", "tidy"]

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def main(script: Path) -> None:
    """Run the script as a notebook in an empty folder, and write the notebook beside it."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(script)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, resources=resources).execute()
        for number, cell in enumerate(notebook.cells):
            cell.id, cell.metadata = f"cell-{number}", {}
            if cell.cell_type == "code":
                cell.outputs = tidy(cell.outputs, folder)
    notebook.metadata = {"kernelspec": _KERNEL}
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def tidy(outputs: list[Any], folder: str) -> list[Any]:
    """Return what a cell printed as one text without progress bars, then its small pictures."""
    from nbformat.v4 import new_output

    text = "".join(each["text"] for each in outputs if each.get("name") == "stdout")
    stream = new_output("stream", name="stdout", text=text.replace(f"{folder}/", ""))
    pngs = [each["data"]["image/png"] for each in outputs if "image/png" in each.get("data", {})]
    pictures = [new_output("display_data", {"image/png": _smaller(png)}) for png in pngs]
    return [*([stream] if text else []), *pictures]


def _smaller(png: str) -> str:
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
