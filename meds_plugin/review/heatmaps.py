"""The detector's maps of the training images, small enough to keep: one byte a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from meds_plugin.callbacks.base import shows_progress
from meds_plugin.encoding.scoring import score_maps
from meds_plugin.utils.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from meds_plugin.wrapper import MeDSWrapper

__all__ = ["Heatmaps", "on_one_scale", "training_maps"]

SIDE = 32
_CHUNK = 512  # images whose maps are held at full size at a time
_FAINT, _STRONG = 0.5, 0.999  # shares of all values that lie below the ends of the scale


@dataclass(frozen=True)
class Heatmaps:
    """Maps on one scale for the whole run.

    Attributes:
        values: uint8 ``[N, h, w]``, higher = more anomalous; 0 is ``low`` or less, 255 ``high`` or
            more.
        low: The detector's value at the lower end of the scale: the median of all.
        high: Its value at the upper end; one value in a thousand is above it.
    """

    values: NDArray[np.uint8]
    low: float
    high: float


def training_maps(model: MeDSWrapper) -> Tensor:
    """Return the maps of all training images by the final model; call it on every rank.

    It costs one more pass over the training images, of the part that is trained where the frozen
    part's results are kept.

    Args:
        model: After ``fit``.

    Returns:
        ``[N, h, w]`` float32 on the CPU, higher = more anomalous, at most `SIDE` a side: of larger
        maps the highest value of each field stays, so that a small defect does.
    """
    if model.stream is None:
        msg = "maps of the training images exist only after a fit"
        raise RuntimeError(msg)
    images = model.stream.images
    if not model.plan.stages and model.memory is not None and model.memory.maps is not None:
        return _pooled(model.memory.maps.float())
    model.to(model.trainer.strategy.root_device)
    starts = range(0, len(images), _CHUNK)
    parts = [
        _pooled(
            score_maps(images, range(start, min(start + _CHUNK, len(images))), device=model.device)
        )
        for start in track(
            starts,
            description="heatmaps",
            total=len(starts),
            enabled=shows_progress(model.trainer),
        )
    ]
    return torch.cat(parts)


def on_one_scale(maps: Tensor) -> Heatmaps:
    """Bring maps ``[N, h, w]`` to bytes, by one scale for all of them."""
    values = maps.numpy().astype(np.float32)
    low, high = (float(value) for value in np.quantile(values, (_FAINT, _STRONG)))
    span = high - low or 1.0  # a detector that tells nothing apart
    levels = np.rint(np.clip((values - low) / span, 0.0, 1.0) * 255)
    return Heatmaps(levels.astype(np.uint8), low, high)


def _pooled(maps: Tensor) -> Tensor:
    size = (min(SIDE, maps.shape[1]), min(SIDE, maps.shape[2]))
    return F.adaptive_max_pool2d(maps[:, None], size)[:, 0].cpu()
