from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.images import read_image
from meds_plugin.data.masks import read_mask
from meds_plugin.data.samples import Sample, Variation
from meds_plugin.data.transforms import Preprocess, apply_variation
from meds_plugin.utils.errors import UserError

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
        Sample("y/hole/0", "y", "hole", pixels[2], view="C1"),
        Sample("y/good/0", "y", None, pixels[3], mask),
        Sample("y/hole/1", "y", "hole", file, mask_file),
    ]
    return ImageDataset(samples, Preprocess((20, 24), (16, 20)))


def test_attributes(dataset: ImageDataset) -> None:
    assert len(dataset) == 5
    assert dataset.categories == ["x", "x", "y", "y", "y"]
    assert dataset.views == [None, None, "C1", None, None]
    assert dataset.groups == ["x", "x", "y/C1", "y", "y"]
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


@pytest.mark.parametrize("source", [1, 4])  # an array, a file
def test_a_variation_changes_image_and_mask_alike(dataset: ImageDataset, source: int) -> None:
    sample = dataset.samples[source]
    assert sample.mask is not None
    variation = Variation(turn=7.0, scale=1.1)
    varied = replace(sample, path="x/hole/0#1", variation=variation)
    plain = dataset[source]["image"]
    mixed = ImageDataset([sample, varied], dataset.preprocess)
    torch.testing.assert_close(mixed[0]["image"], plain, rtol=0, atol=0)
    wanted = dataset.preprocess(apply_variation(read_image(sample.image), variation))
    assert torch.equal(mixed[1]["image"], wanted)
    assert not torch.equal(mixed[1]["image"], plain)
    mask = mixed.mask(1)
    assert mask is not None
    assert torch.equal(
        mask, dataset.preprocess.mask(apply_variation(read_mask(sample.mask), variation))
    )


def test_files_above_the_limit_are_refused(dataset: ImageDataset) -> None:
    within = ImageDataset(dataset.samples, dataset.preprocess, max_pixels=20 * 24)
    assert torch.equal(within[4]["image"], dataset[4]["image"])
    beyond = ImageDataset(dataset.samples, dataset.preprocess, max_pixels=20 * 24 - 1)
    with pytest.raises(UserError, match=r"a.png has 24x20 pixels, more than data.max_pixels=479"):
        beyond[4]
    with pytest.raises(UserError, match=r"a_mask.png has 24x20 pixels"):
        beyond.mask(4)
    with pytest.raises(UserError, match=r"data.max_pixels must be"):
        ImageDataset(dataset.samples, dataset.preprocess, max_pixels=0)


def test_a_bad_file_is_named_when_it_is_asked_for(dataset: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    bad = ImageDataset([Sample("bad", "x", None, tmp_path / "bad.png")], dataset.preprocess)
    with pytest.raises(UserError, match=r"bad.png is not a PNG"):
        bad[0]
