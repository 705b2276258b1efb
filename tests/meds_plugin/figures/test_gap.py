from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.transforms import Preprocess
from meds_plugin.encoding.encoded_images import EncodedImages
from meds_plugin.encoding.reader import ImageReader
from meds_plugin.figures.gap import RATIOS, _covered, theorem_curve
from meds_plugin.memory import expected_scores
from meds_plugin.runs.write import GAP
from tests.made_up import stained


def curve(data: ImageDataset) -> list[dict[str, Any]]:
    """Return the curve with pixels as features."""
    view: Any = SimpleNamespace(
        detector=torch.nn.Identity(),
        features=features,
        encodes=False,
        augments=False,
        normalization=data.normalization,
    )
    images = EncodedImages(ImageReader(DataLoader(data, batch_size=3)), view)
    return theorem_curve(images, data, device=torch.device("cpu"))


def features(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 4) + 3.0


def test_the_curve_is_that_of_the_memory() -> None:
    data = ImageDataset([stained(n, defect=n < 2) for n in range(9)], Preprocess(16))
    rows = curve(data)
    assert [float(row["ratio"]) for row in rows] == list(RATIOS)
    assert all(tuple(row) == GAP for row in rows)
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


@pytest.mark.parametrize("reason", ["no masks", "all clean"])
def test_there_is_no_curve_where_the_truth_is_not_known(reason: str) -> None:
    samples = [
        stained(n, defect=n < 2 and reason != "all clean", mask=reason != "no masks")
        for n in range(6)
    ]
    data = ImageDataset(samples, Preprocess(16))
    assert curve(data) == []


def test_a_defect_smaller_than_a_patch_still_has_one() -> None:
    mask = torch.zeros(16, 16)
    mask[1, 1] = 1.0
    assert _covered(mask, (4, 4)).nonzero().flatten().tolist() == [0]
    assert not _covered(torch.zeros(16, 16), (4, 4)).any()
