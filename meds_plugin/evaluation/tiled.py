"""From the anomaly maps of tiles to evaluated maps and image scores of whole images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from meds_plugin.evaluation.protocol import evaluation_maps
from meds_plugin.metrics import image_score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.evaluation.protocol import EvaluationProtocol
    from meds_plugin.tiles import TileLayout

__all__ = ["evaluate_tiles", "finish_map"]


def evaluate_tiles(
    view: DetectorView | None,
    maps: Tensor,
    layout: TileLayout,
    images: Sequence[int],
    protocol: EvaluationProtocol,
) -> tuple[Tensor, Tensor]:
    """Return the maps that are compared with masks, and the image scores.

    Args:
        view: See `evaluate_maps`; the highest of a detector's own scores of tiles is the image's.
        maps: ``[t, h, w]`` of all tiles of the images, higher = more anomalous.
        layout: Where each tile lies.
        images: Which images.
        protocol: How maps become scores.

    Returns:
        ``[n, R, R]`` evaluated maps and ``[n]`` image scores, higher = more anomalous.
    """
    counts = [len(layout.tiles([image])) for image in images]
    finished = [
        finish_map(layout.stitch(part, image, protocol.resize), protocol, layout.tile_share(image))
        for image, part in zip(images, maps.split(counts), strict=True)
    ]
    evaluated = torch.stack([each for each, _ in finished])
    if view is not None and view.own("image_score") is not None:
        return evaluated, layout.highest(view.image_score(maps, top=0.0), images)
    return evaluated, torch.stack([score for _, score in finished])


def finish_map(
    stitched: Tensor, protocol: EvaluationProtocol, tile_share: float
) -> tuple[Tensor, Tensor]:
    """Smooth a stitched map ``[R, R]``, and score its image.

    The score is the mean of the highest values, as many as make ``image_top`` of a tile: a small
    defect would be lost in a share of a large image.

    Args:
        stitched: See `TileLayout.stitch`.
        protocol: How maps become scores.
        tile_share: A tile's share of the area of the image.

    Returns:
        ``[R, R]`` and a scalar.
    """
    evaluated = evaluation_maps(stitched[None], (protocol.resize, protocol.resize), protocol)
    return evaluated[0], image_score(evaluated, top=protocol.image_top * tile_share)[0]
