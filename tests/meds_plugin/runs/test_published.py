from __future__ import annotations

import pytest

from meds_plugin.runs.published import _CATEGORIES, published_dataset, published_value
from tests.conftest import PROJECT, SHARED
from tests.meds_plugin.runs.test_tables import VISA


def test_published_figures_are_the_papers() -> None:
    assert published_value("mvtec", "dinomaly", "random_init", "P-AUPRO", 0.4) == 0.9454
    assert published_value("mvtec", "softpatch", "softpatch", "I-AUROC", 0.4) == 0.9358
    paper = published_value("real_iad", "patchcore", "patchcore", "I-AUROC", 0.0)
    assert paper == pytest.approx(0.913)
    assert published_value("mvtec", "patchcore", "patchcore", "I-AUROC", 0.4) is None
    assert published_value("mvtec", "hvq", "random_init", "P-AUPRO", 0.4) is None
    assert published_value("mvtec", "dinomaly", "meds", "I-F1max", 0.4) is None
    assert published_dataset(VISA) == "visa"
    assert published_dataset(["nut"]) is None
    assert {name: len(text.split()) for name, text in _CATEGORIES.items()} == {
        "mvtec": 15,
        "visa": 12,
        "real_iad": 30,
    }


def test_the_copy_of_the_published_figures_is_whole() -> None:
    original = SHARED / "data" / "published.csv"
    copy = PROJECT / "meds_plugin" / "runs" / "published.csv"
    if not original.is_file():
        pytest.skip(f"the original is not here: {original}")
    assert original.read_bytes() == copy.read_bytes()
