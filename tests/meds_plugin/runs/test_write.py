from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from meds_plugin.callbacks.training_scores import TrainingScores
from meds_plugin.data import Sample
from meds_plugin.data.image_faults import ImageFaults
from meds_plugin.runs.read import read_rows
from meds_plugin.runs.write import RunFolder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_ranking_holds_faults_where_they_are_known(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    pixels = np.zeros((1, 1, 3), np.uint8)
    samples = [Sample(f"{n}.png", "nut", None, pixels) for n in range(5)]
    scores = TrainingScores(torch.arange(5.0), torch.ones(5, dtype=torch.bool), None, None)
    issues: list[tuple[str, ...]] = [(), ("dark", "odd_size"), (), (), ("blurry",)]
    for faults, words, groups in (
        (None, [""] * 5, [""] * 5),
        (
            ImageFaults(issues, [0, 1, 0, 2, 1], []),
            [*map(" ".join, issues)],
            ["1", "2", "1", "", "2"],
        ),
    ):
        folder.write_ranking(samples, scores, faults=faults)
        rows = sorted(read_rows(tmp_path / "ranking.csv"), key=lambda row: row["path"])
        assert [row["issues"] for row in rows] == words
        assert [row["duplicate_group"] for row in rows] == groups
