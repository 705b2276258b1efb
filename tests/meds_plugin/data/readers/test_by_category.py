from __future__ import annotations

from pathlib import Path

from meds_plugin.data.readers.by_category import category_notes
from meds_plugin.data.samples import Sample


def _sample(path: str, defect: str | None = None, *, mask: bool = False) -> Sample:
    return Sample(path, "a", defect, Path(path), Path(path) if mask else None)


def test_notes_on_a_category() -> None:
    good, bare, full = _sample("0"), _sample("1", "x"), _sample("2", "x", mask=True)
    assert category_notes("a", [], "masks") == ["category a: no test images: no metrics for it"]
    assert category_notes("a", [good], "masks") == []
    assert category_notes("a", [good, full], "masks") == []
    assert category_notes("a", [good, bare], "truth") == [
        "category a: no truth: pixel metrics are skipped"
    ]
    assert category_notes("a", [bare, full], "truth") == [
        "category a: 1 of 2 masks are missing: pixel metrics are skipped"
    ]
