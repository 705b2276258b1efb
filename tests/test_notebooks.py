"""The notebook is what its script gives, the script runs, and a page shows both."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = PROJECT / "docs/notebooks/clean_a_folder.ipynb"
SCRIPT = NOTEBOOK.with_suffix(".py")
SMALL = {
    "GOOD, DEFECTIVE": "8, 4",
    "STEPS": [
        *("steps.distill=20", "steps.finetune=20", "data.image_size=32", "data.batch_size=4"),
        *("evaluation.resize=64", "trainer.accelerator=cpu", "figures=false"),
    ],
}


def test_the_notebook_is_what_its_script_gives() -> None:
    jupytext = pytest.importorskip("jupytext", reason="the extra docs is not installed")
    given = jupytext.read(SCRIPT).cells
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in given
    ], "run python -m tests.benchmarks.notebook docs/notebooks/clean_a_folder.py"


@pytest.mark.slow
def test_the_script_cleans_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    code = SCRIPT.read_text().replace("size=224", "size=32")
    for name, value in SMALL.items():
        code, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", code, flags=re.MULTILINE)
        assert count == 1, name
    scope: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(code, str(SCRIPT), "exec"), scope)  # noqa: S102 - our own documentation
    assert len(scope["ranking"]) == 12
    dropped = [name for name in scope["looked_at"] if scope["is_defective"][name]]
    assert dropped
    kept = (tmp_path / "clean_a_folder/second/manifest.csv").read_text()
    assert [name for name in scope["is_defective"] if f"{name}," not in kept] == sorted(dropped)
    scored = re.findall(r"^(\w+) run: AUROC [01]\.", capsys.readouterr().out, flags=re.MULTILINE)
    assert scored == ["first", "second"]


def test_its_page_shows_code_output_and_picture() -> None:
    spec = importlib.util.spec_from_file_location(
        "notebook_pages", PROJECT / "docs/notebook_pages.py"
    )
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    text = pages.on_page_markdown(NOTEBOOK.with_suffix(".md").read_text())
    assert text.startswith("# Clean a folder of images")
    assert 'meds("run", "data=folder"' in text
    assert "```text\n$ python -m meds_plugin.run data=folder" in text
    assert "data:image/png;base64," in text
    assert "<!--" not in text
