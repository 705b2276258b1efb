"""One pass of the final model over the training images: for ranking, alarms and heatmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from meds_plugin.encoding.scoring import anomaly_maps
from meds_plugin.evaluation.scoring import evaluate_maps

if TYPE_CHECKING:
    from meds_plugin.encoding.encoded_images import EncodedImages
    from meds_plugin.evaluation.protocol import EvaluationProtocol

__all__ = ["FinalPass", "final_pass", "small_maps"]

_MAX_SIDE = 32  # of the maps behind the heatmaps of the review page


class FinalPass(NamedTuple):
    """The final model's results for N training images; on the CPU, higher = more anomalous.

    Attributes:
        selection: ``[N]`` selection scores.
        image: ``[N]`` image scores, computed as in the evaluation.
        peak: ``[N]`` largest value of each evaluated map.
        median: ``[N]`` median of each evaluated map.
        maps: ``[N, h, w]`` maps with sides of at most 32 (see `small_maps`).
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

    name = "final scores" if progress else None
    rows = anomaly_maps(images, range(len(images)), device=device, reduce=reduce, progress=name)
    selection, image, peak, median = rows[:, :4].T.contiguous()
    return FinalPass(selection, image, peak, median, rows[:, 4:].unflatten(1, shape))


def small_maps(maps: Tensor) -> Tensor:
    """Reduce maps ``[N, h, w]`` to sides of at most 32: each cell keeps its highest value."""
    size = (min(_MAX_SIDE, maps.shape[1]), min(_MAX_SIDE, maps.shape[2]))
    return F.adaptive_max_pool2d(maps[:, None], size)[:, 0]
