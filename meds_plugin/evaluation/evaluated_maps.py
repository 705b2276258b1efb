"""Evaluated maps and image scores of a category, in as little memory as it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from meds_plugin.detectors.inference import evaluating
from meds_plugin.distributed.ranks import chunked
from meds_plugin.evaluation.categories import PART
from meds_plugin.evaluation.scoring import evaluate_maps
from meds_plugin.evaluation.tiled import evaluate_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from meds_plugin.callbacks.rival import RivalCallback
    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.evaluation.protocol import EvaluationProtocol
    from meds_plugin.tiles import TileLayout
    from meds_plugin.training.stages import StagePlan

__all__ = ["EvaluatedMaps", "ScoringModel", "evaluate_in_parts"]

_CHUNK = 8  # maps evaluated at a time: those of 256 x 256 fit into a CPU's caches
_KEPT = 1 << 27  # pixels of a category's maps that are kept: 0.5 GB


class ScoringModel(Protocol):
    """What evaluating maps needs of a `MeDSWrapper`."""

    view: DetectorView
    detector: nn.Module
    plan: StagePlan
    rival: RivalCallback | None

    @property
    def device(self) -> torch.device:
        """Where it is."""


class EvaluatedMaps(NamedTuple):
    """A category's evaluated maps and image scores, on the CPU; higher = more anomalous.

    Attributes:
        maps: ``[N, R, R]``, or what returns them in parts, as `category_metrics` takes them.
        scores: ``[N]``.
        kept: ``[m, R, R]``, all maps or evenly spaced ones.
        places: ``[m]`` which of the N these are.
    """

    maps: Tensor | Callable[[], Iterator[Tensor]]
    scores: Tensor
    kept: Tensor
    places: Tensor


def evaluate_in_parts(
    model: ScoringModel,
    maps: Tensor,
    indices: Sequence[int],
    *,
    layout: TileLayout | None,
    size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> EvaluatedMaps:
    """Evaluate a category's maps.

    If all would take over 0.5 GB, they are evaluated anew each time they are needed: that takes
    less time than a file, and no room.

    Args:
        model: The fitted model.
        maps: ``[N, h, w]`` of the images, ``[T, h, w]`` of all their tiles.
        indices: The images' places in the data set.
        layout: Where the tiles lie, if there are any.
        size: Height and width of what the detector saw in pixels.
        protocol: How maps become scores.
    """
    pixels = protocol.resize**2
    chunks = chunked(indices, max(1, PART // pixels))
    step = max(1, -(-len(indices) * pixels // _KEPT))

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for wanted, some in _with_maps(maps, chunks, layout):
            yield _evaluated(model, some, wanted, layout=layout, size=size, protocol=protocol)

    few = ((part if step == 1 else part[::step].clone(), score) for part, score in parts())
    kept, scores = zip(*few, strict=True)
    places = [each[::step] for each in torch.arange(len(indices)).split(len(chunks[0]))]
    every = torch.cat(kept)
    return EvaluatedMaps(
        every if step == 1 else lambda: (part for part, _ in parts()),
        torch.cat(scores),
        every,
        torch.cat(places),
    )


@torch.no_grad()
def _evaluated(
    model: ScoringModel,
    maps: Tensor,
    indices: Sequence[int],
    *,
    layout: TileLayout | None,
    size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> tuple[Tensor, Tensor]:
    """Return evaluated maps ``[n, R, R]`` and image scores ``[n]`` of some images."""
    view = model.view if model.plan.stages else None  # else the maps are no detector's
    if model.rival is not None:
        protocol = replace(protocol, blur_kernel=1)  # it smooths as its authors do
    evaluated = torch.empty(len(indices), protocol.resize, protocol.resize)
    scores = torch.empty(len(indices))
    start = 0
    with evaluating(model.detector):
        for wanted, own in _with_maps(maps, chunked(indices, _CHUNK), layout):
            some = own.to(model.device)
            if model.rival is not None:
                some = model.rival.pixel_maps(some, size)
            if layout is None:
                part, score = evaluate_maps(view, some, size, protocol)
            else:
                part, score = evaluate_tiles(view, some, layout, wanted, protocol)
            evaluated[start : start + len(wanted)] = part.cpu()
            scores[start : start + len(wanted)] = score.cpu()
            start += len(wanted)
    return evaluated, scores


def _with_maps(
    maps: Tensor, chunks: Sequence[Sequence[int]], layout: TileLayout | None
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield each chunk of images with its maps, of which an image in tiles has several."""
    done = 0
    for wanted in chunks:
        count = len(wanted) if layout is None else len(layout.tiles(wanted))
        yield wanted, maps[done : done + count]
        done += count
