from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from meds_plugin.data import Sample
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.figures.examples import ExampleImages
from meds_plugin.utils.atomic import write_arrays
from tests.made_up import stained

if TYPE_CHECKING:
    from pathlib import Path

OTHER = Normalization((0.9, 0.5, 0.1), (0.5, 2.0, 0.1), "bicubic")


@pytest.mark.parametrize("normalization", [IMAGENET, OTHER])
def test_examples_have_ground_truth_and_one_scale(
    tmp_path: Path, normalization: Normalization
) -> None:
    samples = [stained(n, defect=n < 4, mask=n != 3) for n in range(7)]
    data = ImageDataset(samples, Preprocess(16, normalization=normalization))
    examples = ExampleImages(data)
    assert examples.arrays() == {}
    maps = torch.arange(7.0)[:, None, None].expand(7, 8, 8)
    examples.add(torch.arange(7), maps)
    write_arrays(tmp_path / "examples.npz", examples.arrays())
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as stored:
        assert stored["paths"].tolist() == ["nut/0.png", "nut/3.png", "nut/4.png"]
        assert stored["maps"][:, 0, 0].tolist() == [0, 3, 4]
        np.testing.assert_array_equal(stored["images"][0], np.asarray(samples[0].image))
        assert stored["images"].dtype == np.uint8
        assert [stored["masks"][place].max() for place in range(3)] == [1, 255, 0]
        assert stored["scale"].tolist() == pytest.approx([3, 6])


def test_large_images_are_reduced() -> None:
    pixels = np.zeros((600, 300, 3), np.uint8)
    data = ImageDataset([Sample("a.png", "nut", None, pixels)], Preprocess((600, 300)))
    examples = ExampleImages(data)
    examples.add(torch.tensor([0]), torch.ones(1, 4, 4))
    assert examples.arrays()["images"].shape == (1, 256, 128, 3)
