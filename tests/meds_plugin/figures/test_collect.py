from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from meds_plugin.data import Sample
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.figures.collect import GAP_FIELDS, RATIOS, TestExamples, _covered, theorem_curve
from meds_plugin.memory import expected_scores
from meds_plugin.utils.atomic import write_arrays

if TYPE_CHECKING:
    from pathlib import Path


def picture(number: int, *, defect: bool = False, mask: bool = True) -> Sample:
    pixels = np.random.default_rng(number).integers(90, 110, (16, 16, 3)).astype(np.uint8)
    truth = np.zeros((16, 16), np.uint8)
    if defect:
        pixels[:8, :8] = (250, 0, 0)
        truth[:8, :8] = 255
    return Sample(
        f"nut/{number}.png",
        "nut",
        "stain" if defect else None,
        pixels,
        mask=truth if defect and mask else None,
        injected=defect,
    )


class Model:
    """What the curve needs of a fitted wrapper, with pixels as features."""

    def __init__(self, data: ImageDataset, side: int = 4) -> None:
        maps = torch.empty(len(data), side, side, device="meta")
        self.memory = SimpleNamespace(seconds=1000.0, maps=maps)
        view: Any = SimpleNamespace(
            detector=torch.nn.Identity(),
            features=features,
            encodes=False,
            normalization=data.normalization,
        )
        reader = ImageReader(DataLoader(data, batch_size=3))
        self.stream = SimpleNamespace(images=EncodedImages(reader, view))
        self.device = torch.device("cpu")


def features(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 4) + 3.0


def test_the_curve_is_that_of_the_memory() -> None:
    data = ImageDataset([picture(n, defect=n < 2) for n in range(9)], Preprocess(16))
    rows = theorem_curve(Model(data), data)  # type: ignore[arg-type]
    assert [float(row["ratio"]) for row in rows] == list(RATIOS)
    assert all(tuple(row) == GAP_FIELDS for row in rows)
    maps = torch.stack([features(data[n]["image"][None])[0] for n in range(9)])
    patches = maps.flatten(2).transpose(1, 2)
    scores = expected_scores(patches, 0.3, leave_self_out=True)
    wanted = torch.zeros(9, 4, 4, dtype=torch.bool)
    wanted[:2, :2, :2] = True
    row = next(row for row in rows if row["ratio"] == 0.3)
    anomalous, normal = scores[wanted.flatten(1)].mean(), scores[2:].mean()
    assert float(row["anomalous"]) == pytest.approx(float(anomalous), rel=1e-5)
    assert float(row["normal"]) == pytest.approx(float(normal), abs=1e-6)
    assert float(row["gap"]) == pytest.approx(float(anomalous - normal), abs=1e-6)
    assert row["images"] == 3
    assert float(row["auroc"]) > 0.9


@pytest.mark.parametrize("reason", ["slow", "no masks", "all clean"])
def test_there_is_no_curve_where_it_costs_minutes_or_the_truth_is_not_known(reason: str) -> None:
    samples = [
        picture(n, defect=n < 2 and reason != "all clean", mask=reason != "no masks")
        for n in range(6)
    ]
    data = ImageDataset(samples, Preprocess(16))
    model = Model(data, side=400 if reason == "slow" else 4)
    assert theorem_curve(model, data) == []  # type: ignore[arg-type]


def test_a_defect_smaller_than_a_patch_still_has_one() -> None:
    mask = torch.zeros(16, 16)
    mask[1, 1] = 1.0
    assert _covered(mask, (4, 4)).nonzero().flatten().tolist() == [0]
    assert not _covered(torch.zeros(16, 16), (4, 4)).any()


OTHER = Normalization((0.9, 0.5, 0.1), (0.5, 2.0, 0.1), "bicubic")


@pytest.mark.parametrize("normalization", [IMAGENET, OTHER])
def test_examples_are_kept_with_truth_and_one_scale(
    tmp_path: Path, normalization: Normalization
) -> None:
    samples = [picture(n, defect=n < 4, mask=n != 3) for n in range(7)]
    data = ImageDataset(samples, Preprocess(16, normalization=normalization))
    examples = TestExamples(data)
    assert examples.arrays() == {}
    maps = torch.arange(7.0)[:, None, None].expand(7, 8, 8)
    examples.add(torch.arange(7), maps)
    write_arrays(tmp_path / "examples.npz", examples.arrays())
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as kept:
        assert kept["paths"].tolist() == ["nut/0.png", "nut/3.png", "nut/4.png"]
        assert kept["maps"][:, 0, 0].tolist() == [0, 3, 4]
        np.testing.assert_array_equal(kept["images"][0], np.asarray(samples[0].image))
        assert kept["images"].dtype == np.uint8
        assert [kept["masks"][place].max() for place in range(3)] == [1, 255, 0]
        assert kept["scale"].tolist() == pytest.approx([3, 6])


def test_large_images_are_kept_small() -> None:
    pixels = np.zeros((600, 300, 3), np.uint8)
    data = ImageDataset([Sample("a.png", "nut", None, pixels)], Preprocess((600, 300)))
    examples = TestExamples(data)
    examples.add(torch.tensor([0]), torch.ones(1, 4, 4))
    assert examples.arrays()["images"].shape == (1, 256, 128, 3)
