"""Scores the images found, batch by batch, and writes the results."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from PIL import Image
from torch.utils.data import DataLoader

from meds_plugin.data.check import libtiff_silenced
from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import natural_key
from meds_plugin.prediction.dataset import PredictionDataset
from meds_plugin.prediction.folder import ScoreRow
from meds_plugin.prediction.heatmap import at_source, colours, png
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track
from meds_plugin.utils.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.data.samples import Pixels
    from meds_plugin.evaluation.alarms import AlarmThreshold
    from meds_plugin.prediction.dataset import LoadedImage
    from meds_plugin.prediction.folder import PredictionFolder
    from meds_plugin.prediction.inputs import FoundImages
    from meds_plugin.prediction.predictor import AlarmSettings, Predictor

__all__ = ["PredictionJob", "RenderSettings"]

ALL = "global"  # names the threshold of all categories together


class RenderSettings(NamedTuple):
    """Which images are written for each input image, and how.

    Attributes:
        heatmaps: Whether to write heatmaps.
        masks: Whether to write masks.
        scale: Values of the first and the last colour, the same for all images; default: the run's.
        overlay: Share of the input image in a heatmap, in [0, 1].
    """

    heatmaps: bool = True
    masks: bool = True
    scale: tuple[float, float] | None = None
    overlay: float = 0.0


class _Image(NamedTuple):
    name: str
    file: Path
    category: str | None


class PredictionJob:
    """One call of the command line.

    Args:
        predictor: The detector.
        alarm: How thresholds are set.
        folder: Where results go.
        rendering: Which images are written.

    Attributes:
        rows: The results so far, one per image.

    Raises:
        UserError: If heatmaps are asked for and there is no scale.
    """

    def __init__(
        self,
        predictor: Predictor,
        alarm: AlarmSettings,
        folder: PredictionFolder,
        rendering: RenderSettings,
    ) -> None:
        stored = predictor.thresholds.scale if predictor.thresholds else None
        self._scale = rendering.scale or stored or (0.0, 0.0)
        if rendering.heatmaps and self._scale == (0.0, 0.0):
            file = predictor.source.with_name("threshold.json")
            msg = f"{file} is missing: give scale=[LOW,HIGH], or heatmaps=false"
            raise UserError(msg)
        self.rows: list[ScoreRow] = []
        self._predictor = predictor
        self._alarm = alarm
        self._folder = folder
        self._rendering = rendering
        self._images: list[_Image] = []
        self._passed_over = 0
        self._batch_size = 1
        self._thresholds: dict[str | None, AlarmThreshold] = {}

    def assign_categories(
        self, found: FoundImages, *, category: str | None, by_directory: bool
    ) -> None:
        """Find the category of each image, and the thresholds.

        Args:
            found: The images.
            category: The category of all of them.
            by_directory: The first folder of a name is the category; images of an unknown one
                cannot be scored.

        Raises:
            UserError: If both are given, the category is unknown, or one is needed and not given.
        """
        if category is not None and by_directory:
            msg = "category= and by_directory=true cannot be combined: leave one out"
            raise UserError(msg)
        self._passed_over = found.passed_over
        self.rows = [ScoreRow(each.path, error=each.reason) for each in found.problems]
        for name, file in found.images.items():
            folder = name.split("/")[0] if "/" in name else None
            if by_directory and folder not in self._predictor.categories:
                known = ", ".join(self._predictor.categories)
                reason = (
                    f"{shown(name)} lies in no folder of a category of the model ({known}): move "
                    "it, or leave by_directory out"
                )
                self.rows.append(ScoreRow(name, error=reason))
                continue
            own = self._predictor.check_category(folder if by_directory else category)
            self._images.append(_Image(name, file, own))
        for own in sorted({image.category for image in self._images}, key=str):
            self._thresholds[own] = self._predictor.threshold(own, self._alarm)

    def score(self, *, batch_size: int, workers: int, max_pixels: int, progress: bool) -> None:
        """Score all images; write their heatmaps and masks."""
        data = PredictionDataset(
            [image.file for image in self._images],
            self._predictor.transform,
            max_pixels=max_pixels,
            with_pixels=self._rendering.heatmaps and self._rendering.overlay > 0,
            tiling=self._predictor.tiling,
        )
        tiled = self._predictor.tiling is not None
        self._batch_size = batch_size
        loader: DataLoader[LoadedImage] = DataLoader(
            data,
            batch_size=1 if tiled else batch_size,
            num_workers=workers,
            collate_fn=list,
            # Without its own, the loader would advance the global generator.
            generator=torch.Generator(),
        )
        with libtiff_silenced(data.files):
            for batch in track(
                loader, description="predict", total=len(loader), enabled=progress and len(data) > 0
            ):
                self._score_batch(batch)

    def finish(self) -> None:
        """Write the tables and print a summary.

        Raises:
            UserError: If no image could be scored; the tables are written all the same.
        """
        self.rows.sort(key=lambda row: natural_key(row.path))
        bad = [row for row in self.rows if row.error]
        scored, defective = len(self.rows) - len(bad), sum(bool(row.label) for row in self.rows)
        warnings = self._warnings()
        self._folder.finish(
            self.rows,
            {
                "checkpoint": str(self._predictor.source),
                "backbone": self._predictor.backbone,
                "images": len(self.rows),
                "judged": scored,
                "defective": defective,
                "passed_over": self._passed_over,
                "thresholds": {
                    name or ALL: asdict(each) for name, each in self._thresholds.items()
                },
                "scale": list(self._scale),
                "warnings": warnings,
                "bad": [{"path": row.path, "reason": row.error} for row in bad],
            },
        )
        if not scored:
            msg = (
                f"no image could be scored (see {self._folder.scores}); the first of {len(bad)}: "
                f"{bad[0].error}"
            )
            raise UserError(msg)
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr)
        unused = f"; {len(bad)} cannot be used" if bad else ""
        print(f"{counted(scored, 'image')} scored, {defective} defective{unused}")
        for row in bad[:10]:
            print(f"  {row.error}")
        if len(bad) > 10:
            print(f"  and {len(bad) - 10} more")
        print(f"results are in {self._folder.path}: scores.csv, summary.json, ...")

    def _score_batch(self, batch: list[LoadedImage]) -> None:
        good = [item for item in batch if item.error is None]
        for item in batch:
            if item.error is not None:
                image = self._images[item.place]
                self.rows.append(ScoreRow(image.name, image.category, error=item.error))
        if not good:
            return
        names = [self._images[item.place].category for item in good]
        tensors = [item.image for item in good if item.image is not None]
        if tensors:
            scores, maps = self._predictor.score_batch(torch.stack(tensors), names)
        else:  # one that is cut into tiles
            whole = Image.fromarray(cast("Pixels", good[0].pixels))
            size = self._batch_size
            scores, maps = self._predictor.score_image(whole, names[0], batch_size=size)
        for item, score, evaluated in zip(good, scores.tolist(), maps, strict=True):
            image = self._images[item.place]
            threshold = self._thresholds[image.category]
            self._render(image.name, item, evaluated, threshold.pixel)
            label = int(score > threshold.image)
            self.rows.append(
                ScoreRow(image.name, image.category, str(score), label, str(threshold.image))
            )

    def _render(self, name: str, item: LoadedImage, evaluated: Tensor, threshold: float) -> None:
        if not (self._rendering.heatmaps or self._rendering.masks):
            return
        seen = None if self._predictor.tiling else self._predictor.transform
        values = at_source(evaluated.numpy(), item.size, seen)
        if self._rendering.heatmaps:
            painted = colours(
                values,
                self._scale,
                image=item.pixels if self._rendering.overlay > 0 else None,
                overlay=self._rendering.overlay,
            )
            self._folder.write_image("heatmaps", name, png(painted))
        if self._rendering.masks:
            # NaN where the detector saw nothing: above no threshold.
            self._folder.write_image("masks", name, png(values > threshold))

    def _warnings(self) -> list[str]:
        """Say that the training ended early, and which thresholds rest on too few images."""
        predictor, alarm = self._predictor, self._alarm
        lines = []
        if predictor.cut_short:
            lines.append(f"{predictor.source}: {predictor.cut_short}")
        stored = predictor.thresholds
        if stored is not None and (alarm.image is None or alarm.pixel is None):
            lines += [
                line
                for name in self._thresholds
                if (line := stored.shortfall(name, rate=alarm.rate))
            ]
        return list(dict.fromkeys(lines))
