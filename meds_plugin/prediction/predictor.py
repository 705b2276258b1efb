"""Judges new images with a trained detector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meds_plugin.data.decoding import Decoded
from meds_plugin.data.images import read_image, to_rgb
from meds_plugin.evaluation.alarms import Threshold, check_rate
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from meds_plugin.data.transforms import Preprocess
    from meds_plugin.evaluation.alarms import Thresholds
    from meds_plugin.evaluation.scorer import Scorer

    OneImage: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]"
    Images: TypeAlias = Tensor | OneImage | Sequence[OneImage]

__all__ = ["Alarm", "Prediction", "Predictor"]


@dataclass(frozen=True)
class Alarm:
    """Where alarms are to begin, as far as it differs from what the run has stored.

    Attributes:
        rate: Share of normal images that may be called defective, in (0, 1).
        image: Threshold of image scores; goes before the rate.
        pixel: Threshold of pixels; goes before the rate.

    Raises:
        UserError: If one is no number, or the rate is out of its range.
    """

    rate: float | None = None
    image: float | None = None
    pixel: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        if self.rate is not None:
            check_rate(self.rate)
        for key, value in (("threshold", self.image), ("pixel_threshold", self.pixel)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and np.isfinite(value)):
                msg = f"{key} must be a number, got {value!r}"
                raise UserError(msg)


@dataclass(frozen=True)
class Prediction:
    """What a detector says of N images; all on the CPU.

    Attributes:
        scores: ``[N]`` image scores, as the run's evaluation makes them; higher = more anomalous.
        labels: ``[N]`` bool, true where the score is above the threshold: defective.
        maps: ``[N, R, R]`` evaluated maps (resized to ``evaluation.resize`` and smoothed) of what
            the detector saw, which is the image's centre where the run crops; higher = more
            anomalous.
        masks: ``[N, R, R]`` bool, true where the map is above the pixel threshold.
        thresholds: The threshold of each image.
    """

    scores: Tensor
    labels: Tensor
    maps: Tensor
    masks: Tensor
    thresholds: tuple[Threshold, ...]


class Predictor:
    """A trained detector with all that it needs to judge images; made by `meds_plugin.load`.

    Args:
        scorer: The detector and what its evaluation does.
        preprocess: From images to tensors, as in training.
        categories: Names of the training categories, sorted.
        thresholds: Where alarms begin; ``None`` where the run has not stored it.
        device: Where to compute.
        source: The checkpoint.
        backbone: The detector's name.

    Attributes:
        scorer: As given, on the device; likewise the other arguments.
    """

    def __init__(
        self,
        scorer: Scorer,
        preprocess: Preprocess,
        *,
        categories: Sequence[str],
        thresholds: Thresholds | None,
        device: torch.device,
        source: Path,
        backbone: str,
    ) -> None:
        self.scorer = scorer.to(device)
        self.preprocess = preprocess
        self.categories = tuple(categories)
        self.thresholds = thresholds
        self.device = device
        self.source = source
        self.backbone = backbone

    def predict(
        self,
        images: Images,
        *,
        category: str | Sequence[str | None] | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """Judge images.

        Args:
            images: A tensor ``[B, 3, H, W]`` or ``[3, H, W]``, floating-point: already resized,
                cropped and normalised, as `preprocess` does it. Or an image, or several: files,
                Pillow's images (taken as they lie, EXIF turns are not applied), uint8 arrays
                ``[H, W, 3]``; these are prepared here.
            category: Of all images, or of each; needed by detectors that have parts for each
                category. With it, images are judged by their category's own threshold. Where the
                run had one category, all images are of it.
            false_alarm_rate: Another rate than the run's for the thresholds.
            threshold: Of image scores, instead.
            pixel_threshold: Of pixels, instead.
            batch_size: Images at a time.

        Raises:
            UserError: If an image cannot be read, has the wrong size or kind, a category is
                missing or unknown, or no threshold is stored and none given.
        """
        alarm = Alarm(false_alarm_rate, threshold, pixel_threshold)
        items = images if isinstance(images, Tensor) else _listed(images)
        if isinstance(items, Tensor) and items.ndim == 3:
            items = items.unsqueeze(0)
        names = _one_each(category, len(items))
        wanted = [self.threshold(self.check_category(name), alarm) for name in names]
        scores, maps = [], []
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            batch = part if isinstance(part, Tensor) else torch.stack([*map(self._tensor, part)])
            score, evaluated = self.judge(batch, names[start : start + batch_size])
            scores.append(score)
            maps.append(evaluated)
        if not scores:
            msg = "there are no images to judge"
            raise UserError(msg)
        score, evaluated = torch.cat(scores), torch.cat(maps)
        limits = torch.tensor([[each.image, each.pixel] for each in wanted], dtype=torch.float64)
        return Prediction(
            score,
            score.double() > limits[:, 0],
            evaluated,
            evaluated.double() > limits[:, 1, None, None],
            tuple(wanted),
        )

    @torch.no_grad()
    def judge(self, images: Tensor, names: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return scores ``[B]`` and evaluated maps ``[B, R, R]`` of prepared images, on the CPU.

        Args:
            images: ``[B, 3, H, W]``, normalised.
            names: The category of each image.

        Raises:
            UserError: If they have another size, or a value is not finite.
        """
        size = self.preprocess.input_size
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1:] != (3, *size):
            msg = (
                f"a tensor of images must be floating-point [B, 3, {size[0]}, {size[1]}], resized "
                f"and normalised; got {images.dtype} {list(images.shape)}: give files, Pillow's "
                "images or uint8 arrays to have them prepared"
            )
            raise UserError(msg)
        place = {name: index for index, name in enumerate(self.categories)}
        category = torch.tensor(
            [-1 if name is None else place[name] for name in map(self.check_category, names)]
        )
        maps, scores = self.scorer(images.float().to(self.device), category.to(self.device))
        if not bool(torch.isfinite(maps).all()):
            msg = f"{self.source}: the detector gives maps that are not finite for these images"
            raise UserError(msg)
        return scores.cpu(), maps.cpu()

    def check_category(self, name: str | None) -> str | None:
        """Return an image's category among the trained ones, ``None`` where it is unknown.

        Raises:
            UserError: If it is none of them, or is needed and not given.
        """
        if name is None and len(self.categories) == 1:
            return self.categories[0]
        known = ", ".join(self.categories) or "none stored"
        if name is not None and name not in self.categories:
            msg = f"category={name} is none of the model's: {known}"
            raise UserError(msg)
        if name is None and bool(getattr(self.scorer.detector, "needs_category", False)):
            msg = (
                f"{self.source} judges each category by parts of its own: give category=NAME or "
                f"by_directory=true; there are: {known}"
            )
            raise UserError(msg)
        return name

    def threshold(self, category: str | None, alarm: Alarm | None = None) -> Threshold:
        """Return where alarms begin for images of a category.

        Args:
            category: One of `categories`, or ``None``: of all images together.
            alarm: What differs from the run.

        Raises:
            UserError: If nothing is stored, or not of this category, and too little given.
        """
        alarm = alarm or Alarm()
        if alarm.image is not None and alarm.pixel is not None:
            return Threshold(alarm.image, alarm.pixel)
        if self.thresholds is None:
            msg = (
                f"{self.source.with_name('threshold.json')} is missing, which a run writes at its "
                "end: let it go on with resume=RUN, or give threshold= and pixel_threshold="
            )
            raise UserError(msg)
        stored = self.thresholds.of(category, rate=alarm.rate)
        return Threshold(
            stored.image if alarm.image is None else alarm.image,
            stored.pixel if alarm.pixel is None else alarm.pixel,
        )

    def _tensor(self, image: OneImage) -> Tensor:
        return self.preprocess(_read(image))


def _read(image: OneImage) -> Image.Image:
    """Return an image as 8-bit RGB."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        bits = 16 if image.mode.startswith("I;16") else 32
        return to_rgb(Decoded(image.copy(), bits, inverted=False), Path("an image of Pillow's"))
    if isinstance(image, np.ndarray):
        try:
            return read_image(image)
        except ValueError as error:
            raise UserError(str(error)) from None
    msg = f"images must be files, Pillow's images, uint8 arrays or a tensor, got {type(image)}"
    raise UserError(msg)


def _listed(images: OneImage | Sequence[OneImage]) -> Sequence[OneImage]:
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, Sequence) and not isinstance(images, str):
        return images
    return [images]


def _one_each(category: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    if category is None or isinstance(category, str):
        return [category] * count
    if len(category) != count:
        msg = f"category names {len(category)} images, but there are {count}"
        raise UserError(msg)
    return list(category)
