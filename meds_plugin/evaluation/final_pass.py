"""One pass of the final model over the training images: for ranking, alarms and heatmaps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.detectors.inference import evaluating
from meds_plugin.encoding.scoring import anomaly_maps
from meds_plugin.evaluation.scoring import evaluate_maps
from meds_plugin.evaluation.tiled import evaluate_tiles

if TYPE_CHECKING:
    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.evaluation.protocol import EvaluationProtocol
    from meds_plugin.tiles import TileLayout

__all__ = ["FinalPass", "final_pass", "small_maps"]

# Of the maps behind the heatmaps of the review page.
_MAX_SIDE = 32
_MAX_TILED_SIDE = 64


class FinalPass(NamedTuple):
    """The final model's results for N training images; on the CPU, higher = more anomalous.

    Attributes:
        selection: ``[N]`` selection scores; of images in tiles, those of all tiles.
        image: ``[N]`` image scores, computed as in the evaluation.
        peak: ``[N]`` largest value of each evaluated map.
        median: ``[N]`` median of each evaluated map.
        maps: ``[N, h, w]`` maps with sides of at most 32, of images in tiles 64.
    """

    selection: Tensor
    image: Tensor
    peak: Tensor
    median: Tensor
    maps: Tensor


def final_pass(
    images: EncodedImages,
    *,
    top: float,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
    device: torch.device,
    progress: bool = False,
) -> FinalPass:
    """Score all training images; call it on every rank.

    Args:
        images: The training images and the detector.
        top: Share of a map's largest values that make the selection score.
        input_size: Height and width of the images in pixels.
        protocol: How maps become image scores.
        device: Where the detector is.
        progress: Show a progress bar.
    """
    name = "final scores" if progress else None
    if (layout := images.reader.layout) is not None:
        every = anomaly_maps(images, range(len(images)), device=device, progress=name)
        with torch.no_grad(), evaluating(images.view.detector):
            return _of_tiles(images.view, every, layout, top=top, protocol=protocol)
    shape = (0, 0)

    def reduce(maps: Tensor) -> Tensor:
        nonlocal shape
        evaluated, image = evaluate_maps(images.view, maps, input_size, protocol)
        pixels, small = evaluated.flatten(1), small_maps(maps)
        shape = (small.shape[1], small.shape[2])
        scores = (
            images.view.image_score(maps, top=top),
            image,
            pixels.amax(dim=1),
            pixels.median(dim=1).values,
        )
        return torch.cat([torch.stack(scores, dim=1), small.flatten(1)], dim=1)

    rows = anomaly_maps(images, range(len(images)), device=device, reduce=reduce, progress=name)
    selection, image, peak, median = rows[:, :4].T.contiguous()
    return FinalPass(selection, image, peak, median, rows[:, 4:].unflatten(1, shape))


def _of_tiles(
    view: DetectorView,
    maps: Tensor,
    layout: TileLayout,
    *,
    top: float,
    protocol: EvaluationProtocol,
) -> FinalPass:
    """Return the same of whole images, given the maps ``[T, h, w]`` of all tiles."""
    rows = []
    for image in range(len(layout.sizes)):
        own = maps[layout.tiles([image])]
        evaluated, score = evaluate_tiles(view, own, layout, [image], protocol)
        small = _stitched_small(own, layout, image)
        rows.append((score[0], evaluated.amax(), evaluated.median(), small))
    score, peak, median, small = (torch.stack(part) for part in zip(*rows, strict=True))
    return FinalPass(view.image_score(maps, top=top), score, peak, median, small)


def _stitched_small(maps: Tensor, layout: TileLayout, image: int) -> Tensor:
    """Return a small map ``[s, s]`` of an image, given those of its tiles: as fine as they are."""
    height, width = layout.sizes[image]
    cells = max(
        maps.shape[1] * height / layout.tiling.size[0],
        maps.shape[2] * width / layout.tiling.size[1],
    )
    whole = layout.stitch(maps, image, max(_MAX_TILED_SIDE, math.ceil(cells)))
    return _reduced(whole[None], _MAX_TILED_SIDE)[0]


def small_maps(maps: Tensor, layout: TileLayout | None = None) -> Tensor:
    """Reduce maps to sides of at most 32, of images in tiles 64: cells keep their highest value.

    Args:
        maps: ``[N, h, w]`` of images, or ``[T, h, w]`` of all their tiles.
        layout: Where the tiles lie.

    Returns:
        ``[N, h, w]``.
    """
    if layout is not None:
        each = [
            _stitched_small(maps[layout.tiles([image])], layout, image)
            for image in range(len(layout.sizes))
        ]
        return torch.stack(each)
    return _reduced(maps, _MAX_SIDE)


def _reduced(maps: Tensor, side: int) -> Tensor:
    size = (min(side, maps.shape[1]), min(side, maps.shape[2]))
    return F.adaptive_max_pool2d(maps[:, None], size)[:, 0]
