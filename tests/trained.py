"""Small trained runs, and what their evaluation saw, for tests of what comes after a run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from meds_plugin.config.location import conf_dir
from meds_plugin.evaluation import evaluate
from meds_plugin.evaluation.categories import category_metrics
from meds_plugin.job import run
from tests.test_run import TINY

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from torch import Tensor

    from meds_plugin.data import Sample

__all__ = ["Trained", "called", "train"]


@dataclass
class Trained:
    """A finished run.

    Attributes:
        folder: Of the run.
        test: Its test images, by category, in the evaluation's order.
        scores: The evaluation's scores of them.
        maps: The evaluation's maps of them.
    """

    folder: Path
    test: dict[str, list[Sample]]
    scores: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "model.ckpt"

    def write_test_images(self, root: Path) -> list[str]:
        """Write the test images as files, a folder a category, and return their names."""
        names = []
        for category, samples in self.test.items():
            for place, sample in enumerate(samples):
                name = f"{category}/{place:02d}.png"
                (root / category).mkdir(parents=True, exist_ok=True)
                assert not isinstance(sample.image, Path)
                Image.fromarray(sample.image).save(root / name)
                names.append(name)
        return names


def train(folder: Path, *overrides: str) -> Trained:
    """Run the main job in this process on drawn images, and look on while it evaluates."""
    with (
        mock.patch.dict(os.environ, {"MEDS_STARTED": "now"}),
        initialize_config_dir(conf_dir(), version_base="1.3"),
    ):
        quiet = ("trainer.enable_progress_bar=false", "steps.distill=3", "steps.finetune=3")
        config = compose("config", overrides=[*TINY, *quiet, *overrides])
    samples: list[Sample] = instantiate(config.data.source)().test
    categories = sorted({sample.category for sample in samples})
    found = Trained(folder, {c: [s for s in samples if s.category == c] for c in categories})
    original: Callable[..., Any] = category_metrics
    seen = iter(categories)

    def look(maps: Tensor, scores: Tensor, *others: Any, **named: Any) -> Any:
        category = next(seen)
        found.maps[category], found.scores[category] = maps, scores
        return original(maps, scores, *others, **named)

    with mock.patch.object(evaluate, "category_metrics", look):
        run(config, folder)
    return found


def called(
    main: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> tuple[int, str, str]:
    """Run a command line in this process: status, output, errors."""
    status = 0
    with mock.patch.object(sys, "argv", ["meds_plugin", *arguments]):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    out, err = capsys.readouterr()
    return status, out, err
