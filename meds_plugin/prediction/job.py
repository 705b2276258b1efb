"""Judges found images batch by batch and writes the results."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import DataLoader

from meds_plugin.data.check import libtiff_silenced
from meds_plugin.data.faults import shown
from meds_plugin.data.readers.listing import natural
from meds_plugin.prediction.dataset import ImagesToJudge
from meds_plugin.prediction.folder import Row
from meds_plugin.prediction.heatmap import at_source, colours, png
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from meds_plugin.evaluation.alarms import Threshold
    from meds_plugin.prediction.dataset import ReadImage
    from meds_plugin.prediction.folder import PredictionFolder
    from meds_plugin.prediction.inputs import FoundImages
    from meds_plugin.prediction.predictor import Alarm, Predictor

__all__ = ["Pictures", "PredictionJob"]

ALL = "global"  # what a threshold of all categories together is called


class Pictures(NamedTuple):
    """What is drawn of each image.

    Attributes:
        heatmaps: Whether to write heatmaps.
        masks: Whether to write masks.
        scale: Values at which colours begin and end, for all images alike; default: the run's.
        overlay: Share of the image that shows through a heatmap.
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
        alarm: Where alarms are to begin.
        folder: Where results go.
        pictures: What is drawn.

    Attributes:
        rows: What is known of each image so far.

    Raises:
        UserError: If heatmaps are wanted and there is no scale.
    """

    def __init__(
        self, predictor: Predictor, alarm: Alarm, folder: PredictionFolder, pictures: Pictures
    ) -> None:
        stored = predictor.thresholds.scale if predictor.thresholds else None
        self._scale = pictures.scale or stored or (0.0, 0.0)
        if pictures.heatmaps and self._scale == (0.0, 0.0):
            file = predictor.source.with_name("threshold.json")
            msg = f"{file} is missing: give scale=[LOW,HIGH], or heatmaps=false"
            raise UserError(msg)
        self.rows: list[Row] = []
        self._predictor = predictor
        self._alarm = alarm
        self._folder = folder
        self._pictures = pictures
        self._images: list[_Image] = []
        self._passed_over = 0
        self._thresholds: dict[str | None, Threshold] = {}

    def sort(self, found: FoundImages, *, category: str | None, by_directory: bool) -> None:
        """Find out the category of each image, and the thresholds.

        Args:
            found: The images.
            category: Of all of them.
            by_directory: The first folder of a name is the category; an image of an unknown one
                cannot be judged.

        Raises:
            UserError: If both are given, the category is unknown, or one is needed and not given.
        """
        if category is not None and by_directory:
            msg = "category= and by_directory=true exclude each other: leave one out"
            raise UserError(msg)
        self._passed_over = found.passed_over
        self.rows = [Row(each.path, error=each.reason) for each in found.problems]
        for name, file in found.images.items():
            folder = name.split("/")[0] if "/" in name else None
            if by_directory and folder not in self._predictor.categories:
                known = ", ".join(self._predictor.categories)
                reason = (
                    f"{shown(name)} lies in no folder of a category of the model ({known}): move "
                    "it, or leave by_directory out"
                )
                self.rows.append(Row(name, error=reason))
                continue
            own = self._predictor.check_category(folder if by_directory else category)
            self._images.append(_Image(name, file, own))
        for own in sorted({image.category for image in self._images}, key=str):
            self._thresholds[own] = self._predictor.threshold(own, self._alarm)

    def judge(self, *, batch_size: int, workers: int, max_pixels: int, progress: bool) -> None:
        """Judge all images and write their pictures."""
        data = ImagesToJudge(
            [image.file for image in self._images],
            self._predictor.preprocess,
            max_pixels=max_pixels,
            keep_pixels=self._pictures.heatmaps and self._pictures.overlay > 0,
        )
        loader: DataLoader[ReadImage] = DataLoader(
            data,
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=list,
            # Without one of its own, it would draw from the global generator.
            generator=torch.Generator(),
        )
        with libtiff_silenced(data.files):
            for batch in track(
                loader, description="predict", total=len(loader), enabled=progress and len(data) > 0
            ):
                self._judge(batch)

    def finish(self) -> None:
        """Write the tables, and say what was found.

        Raises:
            UserError: If no image could be judged; the tables are written before.
        """
        self.rows.sort(key=lambda row: natural(row.path))
        bad = [row for row in self.rows if row.error]
        judged, defective = len(self.rows) - len(bad), sum(bool(row.label) for row in self.rows)
        warnings = self._warnings()
        self._folder.finish(
            self.rows,
            {
                "checkpoint": str(self._predictor.source),
                "backbone": self._predictor.backbone,
                "images": len(self.rows),
                "judged": judged,
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
        if not judged:
            msg = (
                f"none of {len(bad)} images could be judged (see {self._folder.scores}), the "
                f"first: {bad[0].error}"
            )
            raise UserError(msg)
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr)
        print(f"{judged} images judged, {defective} of them defective; {len(bad)} cannot be used")
        for row in bad[:10]:
            print(f"  {row.error}")
        if len(bad) > 10:
            print(f"  and {len(bad) - 10} more")
        print(f"everything is in {self._folder.path}: scores.csv, summary.json, ...")

    def _judge(self, batch: list[ReadImage]) -> None:
        good: list[ReadImage] = []
        tensors: list[Tensor] = []
        for item in batch:
            image = self._images[item.place]
            if item.image is None:
                self.rows.append(Row(image.name, image.category, error=item.error))
            else:
                good.append(item)
                tensors.append(item.image)
        if not good:
            return
        names = [self._images[item.place].category for item in good]
        scores, maps = self._predictor.judge(torch.stack(tensors), names)
        for item, score, evaluated in zip(good, scores.tolist(), maps, strict=True):
            image = self._images[item.place]
            threshold = self._thresholds[image.category]
            self._draw(image.name, item, evaluated, threshold.pixel)
            label = int(score > threshold.image)
            self.rows.append(
                Row(image.name, image.category, str(score), label, str(threshold.image))
            )

    def _draw(self, name: str, item: ReadImage, evaluated: Tensor, threshold: float) -> None:
        if not (self._pictures.heatmaps or self._pictures.masks):
            return
        values = at_source(evaluated.numpy(), item.size, self._predictor.preprocess)
        if self._pictures.heatmaps:
            painted = colours(
                values, self._scale, image=item.pixels, overlay=self._pictures.overlay
            )
            self._folder.write_picture("heatmaps", name, png(painted))
        if self._pictures.masks:
            # What was not looked at is no number, which lies above nothing.
            self._folder.write_picture("masks", name, png(values > threshold))

    def _warnings(self) -> list[str]:
        """Say where thresholds rest on too few images."""
        stored, alarm = self._predictor.thresholds, self._alarm
        if stored is None or (alarm.image is not None and alarm.pixel is not None):
            return []
        lines = [stored.shortfall(name, rate=alarm.rate) for name in self._thresholds]
        return list(dict.fromkeys(line for line in lines if line is not None))
