from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.samples import Sample
from meds_plugin.data.transforms import Preprocess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3)).astype(np.uint8)
    mask = np.zeros((20, 24), np.uint8)
    mask[:, 12:] = 255
    file, mask_file = tmp_path / "a.png", tmp_path / "a_mask.png"
    Image.fromarray(pixels[4]).save(file)
    Image.fromarray(mask).save(mask_file)
    samples = [
        Sample("x/good/0", "x", None, pixels[0]),
        Sample("x/hole/0", "x", "hole", pixels[1], mask),
        Sample("y/hole/0", "y", "hole", pixels[2]),
        Sample("y/good/0", "y", None, pixels[3], mask),
        Sample("y/hole/1", "y", "hole", file, mask_file),
    ]
    return ImageDataset(samples, Preprocess((20, 24), (16, 20)))


def test_attributes(dataset: ImageDataset) -> None:
    assert len(dataset) == 5
    assert dataset.groups == ["x", "x", "y", "y", "y"]
    assert dataset.labels.tolist() == [False, True, True, False, True]
    assert [sample.path for sample in dataset.samples][1] == "x/hole/0"


def test_items(dataset: ImageDataset) -> None:
    for index in range(len(dataset)):
        item = dataset[index]
        assert item["index"] == index
        assert item["image"].shape == (3, 16, 20)
        assert torch.equal(item["image"], dataset[index]["image"])
    assert not torch.equal(dataset[0]["image"], dataset[1]["image"])
    with pytest.raises(IndexError):
        dataset[5]


def test_masks(dataset: ImageDataset) -> None:
    half = torch.zeros(16, 20)
    half[:, 10:] = 1
    for index in (1, 4):
        mask = dataset.mask(index)
        assert mask is not None
        assert torch.equal(mask, half)
    for index in (0, 3):  # normal images have no defect, whatever mask they come with
        mask = dataset.mask(index)
        assert mask is not None
        assert torch.equal(mask, torch.zeros(16, 20))
    assert dataset.mask(2) is None


def test_loader_gives_the_same_with_workers(dataset: ImageDataset) -> None:
    alone, helped = (
        list(DataLoader(dataset, batch_size=2, num_workers=workers)) for workers in (0, 2)
    )
    assert len(alone) == len(helped) == 3
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["index"], other["index"])
        assert torch.equal(one["image"], other["image"])
