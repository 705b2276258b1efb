from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from meds_plugin.data.check import check_samples
from meds_plugin.data.mask_notes import mask_notes
from meds_plugin.data.samples import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.data.masks import MaskValues
    from meds_plugin.data.samples import Pixels

IMAGE = np.zeros((40, 40, 3), np.uint8)
GOOD = np.zeros((40, 40), np.uint8)
GOOD[10:20, 15:30] = 255
SETTING = "data.mask_values=nonzero|half|alpha|inverted reads all masks in that way"


def _notes(
    *masks: Pixels | Path, values: MaskValues = "auto", defect: str | None = "cut"
) -> list[str]:
    images = [np.zeros((40, 40, 3), np.uint8) for _ in masks]
    samples = [
        Sample(f"{n}.png", "a", defect, image, mask)
        for n, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    return mask_notes(samples, check_samples(samples, mask_values=values))


def test_clean_masks_need_no_word(tmp_path: Path) -> None:
    edges = np.array(Image.fromarray(GOOD).resize((80, 80)).resize((40, 40)))
    wide = np.zeros_like(GOOD)
    wide[:, 4:] = 255  # a large defect at the border
    assert _notes(GOOD, edges, wide, GOOD // 255) == []
    Image.fromarray(GOOD).save(tmp_path / "a.png")
    assert _notes(tmp_path / "a.png") == []
    assert mask_notes([], check_samples([])) == []


def test_each_finding_has_a_count_and_the_first_file(tmp_path: Path) -> None:
    Image.fromarray(GOOD * 0).save(tmp_path / "empty.png")
    full = np.full_like(GOOD, 255)
    nearly = full.copy()
    nearly[:, :3] = 0
    soft = Image.fromarray(GOOD).filter(ImageFilter.GaussianBlur(4))
    soft_values = (np.asarray(soft) / np.asarray(soft).max() * 255).astype(np.uint8)
    masks = [GOOD, tmp_path / "empty.png", GOOD * 0, full, nearly, 255 - GOOD, soft_values]
    assert _notes(*masks) == [
        f"2 of 7 masks are empty, first {tmp_path / 'empty.png'}",
        "2 of 7 masks cover over 90% of their image, first 3.png",
        "1 of 7 masks look inverted (their border is defective), first 5.png",
        "1 of 7 masks hold grey values away from edges, first 6.png",
        SETTING,
    ]


def test_a_setting_answers_them() -> None:
    inverted = 255 - GOOD
    assert "3 of 3 masks look inverted" in _notes(inverted, inverted.copy(), inverted.copy())[0]
    assert _notes(inverted, inverted.copy(), values="inverted") == []
    assert "look inverted" in _notes(GOOD, values="inverted")[0]


def test_a_file_counts_once_and_masks_of_normal_images_not_at_all(tmp_path: Path) -> None:
    Image.fromarray(GOOD * 0).save(tmp_path / "a.png")
    assert _notes(*[tmp_path / "a.png"] * 3)[0].startswith("1 of 1 masks are empty")
    assert _notes(GOOD * 0, defect=None) == []


def test_every_file_of_a_mask_counts(tmp_path: Path) -> None:
    files = (tmp_path / "a.png", tmp_path / "b.png")
    for file, values in zip(files, (GOOD, GOOD * 0), strict=True):
        Image.fromarray(values).save(file)
    samples = [Sample("0.png", "a", "cut", IMAGE, files)]
    notes = mask_notes(samples, check_samples(samples))
    assert notes[0] == f"1 of 2 masks are empty, first {files[1]}"
