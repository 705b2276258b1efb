"""Scores new images with a trained detector."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meds_plugin.data.decoding import Decoded
from meds_plugin.data.images import read_image, to_rgb
from meds_plugin.data.tile_dataset import cut
from meds_plugin.evaluation.alarms import AlarmThreshold, check_false_alarm_rate
from meds_plugin.evaluation.tiled import evaluate_tiles
from meds_plugin.tiles import TileLayout
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meds_plugin.data.transforms import Preprocess
    from meds_plugin.evaluation.alarms import AlarmThresholds
    from meds_plugin.evaluation.scoring import Scorer
    from meds_plugin.tiles import Tiling

    OneImage: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]"
    Images: TypeAlias = Tensor | OneImage | Sequence[OneImage]

__all__ = ["AlarmSettings", "Prediction", "Predictor"]

_NO_IMAGES = "there are no images to score"


@dataclass(frozen=True)
class AlarmSettings:
    """Thresholds that replace the run's own.

    Attributes:
        rate: Share of normal images above the threshold, in (0, 1).
        image: Threshold of image scores; overrides the rate.
        pixel: Threshold of map values; overrides the rate.

    Raises:
        UserError: If a threshold is not a number, or the rate is out of range.
    """

    rate: float | None = None
    image: float | None = None
    pixel: float | None = None

    def __post_init__(self) -> None:
        """Validate the values."""
        if self.rate is not None:
            check_false_alarm_rate(self.rate)
        for key, value in (("threshold", self.image), ("pixel_threshold", self.pixel)):
            if value is not None and not (is_number(value) and np.isfinite(value)):
                msg = f"{key} must be a number, got {value!r}"
                raise UserError(msg)


@dataclass(frozen=True)
class Prediction:
    """The results for N images, on the CPU.

    Attributes:
        scores: ``[N]`` image scores, computed as in the run's evaluation; higher = more anomalous.
        labels: ``[N]`` bool, true (defective) if the score is above the threshold.
        maps: ``[N, R, R]`` maps resized to ``evaluation.resize`` and smoothed; they cover the
            detector's input, the centre of the image if the run crops. Higher = more anomalous.
        masks: ``[N, R, R]`` bool, true where the map is above the pixel threshold.
        thresholds: The threshold of each image.
    """

    scores: Tensor
    labels: Tensor
    maps: Tensor
    masks: Tensor
    thresholds: tuple[AlarmThreshold, ...]


class Predictor:
    """A trained detector with all it needs to score images; created by `meds_plugin.load`.

    Args:
        scorer: The detector with the run's evaluation.
        transform: Turns RGB images into tensors, as in training.
        tiling: How images are cut into tiles, each of which is then transformed; ``None``: none.
        categories: Names of the training categories, sorted.
        thresholds: The run's thresholds; ``None`` if it stored none.
        device: Where to compute.
        source: The checkpoint file.
        backbone: The detector's name.
        cut_short: Says that its training ended early.

    Attributes:
        scorer: As given, on the device; likewise the other arguments.
    """

    def __init__(
        self,
        scorer: Scorer,
        transform: Preprocess,
        *,
        tiling: Tiling | None = None,
        categories: Sequence[str],
        thresholds: AlarmThresholds | None,
        device: torch.device,
        source: Path,
        backbone: str,
        cut_short: str | None = None,
    ) -> None:
        self.scorer = scorer.to(device)
        self.transform = transform
        self.tiling = tiling
        self.categories = tuple(categories)
        self.thresholds = thresholds
        self.device = device
        self.source = source
        self.backbone = backbone
        self.cut_short = cut_short

    def preprocess(self, images: Images) -> Tensor:
        """Turn images, as `predict` takes them, into the tensor for the detector.

        Args:
            images: See `predict`; a tensor stays as it is.

        Returns:
            ``[B, 3, H, W]``; ``[3, H, W]`` for a single image, or its tiles ``[T, 3, H, W]``.

        Raises:
            UserError: If an image cannot be read or has the wrong type, or there is none, or there
                are several that are cut into tiles.
        """
        if isinstance(images, Tensor):
            return images
        items = _listed(images)
        if len(items) == 0:
            raise UserError(_NO_IMAGES)
        if self.tiling is not None:
            if len(items) > 1:
                msg = "images are cut into tiles here: give one at a time"
                raise UserError(msg)
            image = self._read(items[0])
            starts = self.tiling.starts(image.height, image.width)
            return torch.stack([self.transform(cut(image, s, self.tiling)) for s in starts])
        tensors = torch.stack([self.transform(self._read(image)) for image in items])
        return tensors[0] if _is_one(images) else tensors

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
        """Score images.

        Args:
            images: A floating-point tensor ``[B, 3, H, W]`` or ``[3, H, W]``, already resized,
                cropped and normalised (see `preprocess`). Or one image or several, which are
                preprocessed here: files, Pillow images (EXIF orientation is not applied) or uint8
                arrays ``[H, W, 3]``.
            category: Of all images, or of each; selects the category's own thresholds. Detectors
                with parts for each category need it. Default with a single category: that one.
            false_alarm_rate: Sets the thresholds instead of the run's own rate.
            threshold: Of image scores; overrides the rate.
            pixel_threshold: Of map values; overrides the rate.
            batch_size: Images or tiles scored at once.

        Raises:
            UserError: If an image cannot be read or has the wrong size or type, a category is
                missing or unknown, or a threshold is neither stored nor given; for a tensor, if
                the detector was trained on tiles.
        """
        items = images if isinstance(images, Tensor) else _listed(images)
        if isinstance(items, Tensor) and items.ndim == 3:
            items = items.unsqueeze(0)
        parts = [
            *self.predictions(
                items,
                category=_one_each(category, len(items)),
                alarm=AlarmSettings(false_alarm_rate, threshold, pixel_threshold),
                batch_size=batch_size,
            )
        ]
        if not parts:
            raise UserError(_NO_IMAGES)
        return Prediction(
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.maps for part in parts]),
            torch.cat([part.masks for part in parts]),
            tuple(limit for part in parts for limit in part.thresholds),
        )

    def predictions(
        self,
        images: Iterable[OneImage] | Tensor,
        *,
        category: str | Iterable[str | None] | None = None,
        alarm: AlarmSettings | None = None,
        batch_size: int = 16,
    ) -> Iterator[Prediction]:
        """Score any number of images, a batch at a time; images are taken as they are needed.

        Args:
            images: See `predict`; any iterable of images, or a tensor of a batch or more.
            category: Of all images, or of each, in their order.
            alarm: Thresholds that differ from the run's own.
            batch_size: Images, or tiles, scored at a time.

        Yields:
            The results for up to ``batch_size`` images, or for one that is cut into tiles.

        Raises:
            UserError: See `predict`.
        """
        same = category is None or isinstance(category, str)
        names = itertools.repeat(cast("str | None", category)) if same else category
        pairs = zip(images, cast("Iterable[str | None]", names), strict=not same)
        size = batch_size if self.tiling is None else 1
        while some := [*itertools.islice(pairs, size)]:
            items, own = [item for item, _ in some], [name for _, name in some]
            wanted = [self.threshold(self.check_category(name), alarm) for name in own]
            whole = isinstance(items[0], Tensor)
            if self.tiling is None:
                tensors = torch.stack(cast("Any", items)) if whole else self.preprocess(items)
                scores, maps = self.score_batch(tensors, own)
            elif whole:
                msg = (
                    "the detector was trained on tiles: give files, Pillow images or arrays, "
                    "or tiles to score_batch"
                )
                raise UserError(msg)
            else:
                image = self._read(items[0])
                scores, maps = self.score_image(image, own[0], batch_size=batch_size)
            limits = torch.tensor([[x.image, x.pixel] for x in wanted], dtype=torch.float64)
            yield Prediction(
                scores,
                scores.double() > limits[:, 0],
                maps,
                maps.double() > limits[:, 1, None, None],
                tuple(wanted),
            )

    @torch.no_grad()
    def score_image(
        self, image: Image.Image, name: str | None = None, *, batch_size: int = 16
    ) -> tuple[Tensor, Tensor]:
        """Return the score ``[1]`` and map ``[1, R, R]`` of an image that is cut into tiles.

        No more tiles than a batch are in memory at a time.

        Args:
            image: In RGB.
            name: Its category; ``None``: unknown.
            batch_size: Tiles scored at once.

        Raises:
            UserError: If the image is smaller than a tile, or see `score_batch`.
            RuntimeError: If the detector was not trained on tiles.
        """
        if self.tiling is None:
            msg = "the detector was not trained on tiles"
            raise RuntimeError(msg)
        layout = TileLayout(self.tiling, [(image.height, image.width)])
        maps = []
        for start in range(0, len(layout), batch_size):
            tiles = [
                self.transform(cut(image, each, self.tiling))
                for each in layout.starts[start : start + batch_size]
            ]
            maps.append(self.score_batch(torch.stack(tiles), [name] * len(tiles))[1])
        view, protocol = self.scorer.view, self.scorer.protocol
        evaluated, score = evaluate_tiles(view, torch.cat(maps), layout, [0], protocol)
        return score, evaluated

    @torch.no_grad()
    def score_batch(self, images: Tensor, names: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return the scores ``[B]`` and maps ``[B, R, R]`` of preprocessed images, on the CPU.

        Of tiles: the detector's maps ``[B, h, w]``.

        Args:
            images: ``[B, 3, H, W]``, resized, cropped and normalised.
            names: The category of each image; ``None``: unknown.

        Raises:
            UserError: If the images have another size, or a map is not finite.
        """
        size = self.transform.input_size
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1:] != (3, *size):
            msg = (
                f"a tensor of images must be floating-point [B, 3, {size[0]}, {size[1]}], resized "
                f"and normalised; got {images.dtype} {list(images.shape)}: give files, Pillow "
                "images or uint8 arrays to have them preprocessed"
            )
            raise UserError(msg)
        known = map(self.check_category, names)
        places = [-1 if name is None else self.categories.index(name) for name in known]
        category = torch.tensor(places)
        maps, scores = self.scorer(images.float().to(self.device), category.to(self.device))
        if not bool(torch.isfinite(maps).all()):
            msg = f"{self.source}: the detector returns maps that are not finite for these images"
            raise UserError(msg)
        return scores.cpu(), maps.cpu()

    def check_category(self, name: str | None) -> str | None:
        """Return the category of an image, one of the trained ones; ``None`` if unknown.

        Raises:
            UserError: If it is not one of them, or needed and not given.
        """
        if name is None and len(self.categories) == 1:
            return self.categories[0]
        known = ", ".join(self.categories) or "none stored"
        if name is not None and name not in self.categories:
            msg = f"category={name} is not one of the model's: {known}"
            raise UserError(msg)
        if name is None and bool(getattr(self.scorer.detector, "needs_category", False)):
            msg = (
                f"{self.source} has parts for each category: give category=NAME or "
                f"by_directory=true; there are: {known}"
            )
            raise UserError(msg)
        return name

    def threshold(self, category: str | None, alarm: AlarmSettings | None = None) -> AlarmThreshold:
        """Return the thresholds for images of a category.

        Args:
            category: One of `categories`; ``None``: those of all images together.
            alarm: What differs from the run's own.

        Raises:
            UserError: If a threshold is neither given nor stored for this category.
        """
        alarm = alarm or AlarmSettings()
        if alarm.image is not None and alarm.pixel is not None:
            return AlarmThreshold(alarm.image, alarm.pixel)
        if self.thresholds is None:
            msg = (
                f"{self.source.with_name('threshold.json')} is missing, which a run writes at its "
                "end: finish the run with resume=RUN, or give threshold= and pixel_threshold="
            )
            raise UserError(msg)
        stored = self.thresholds.of(category, rate=alarm.rate)
        return AlarmThreshold(
            stored.image if alarm.image is None else alarm.image,
            stored.pixel if alarm.pixel is None else alarm.pixel,
        )

    def _read(self, image: OneImage) -> Image.Image:
        """Return an image as 8-bit RGB."""
        value_range = self.transform.value_range
        if isinstance(image, (str, os.PathLike)):
            return read_image(Path(image), value_range=value_range)
        if isinstance(image, Image.Image):
            bits = 16 if image.mode.startswith("I;16") else 32
            decoded = Decoded(image.copy(), bits, inverted=False)
            return to_rgb(decoded, Path("a Pillow image"), value_range)
        if isinstance(image, np.ndarray):
            try:
                return read_image(image)
            except ValueError as error:
                raise UserError(str(error)) from None
        msg = f"images must be files, Pillow images, uint8 arrays or a tensor, got {type(image)}"
        raise UserError(msg)


def _is_one(images: OneImage | Sequence[OneImage]) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim <= 3
    return isinstance(images, str) or not isinstance(images, Sequence)


def _listed(images: OneImage | Sequence[OneImage]) -> Sequence[OneImage]:
    return cast("Sequence[OneImage]", [images] if _is_one(images) else images)


def _one_each(category: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    if category is None or isinstance(category, str):
        return [category] * count
    if len(category) != count:
        msg = f"category names {len(category)} images, but there are {count}"
        raise UserError(msg)
    return list(category)
