"""Coresets: few points that leave none far from all of them, picked greedily.

The greedy rule picks, one after the other, the point that is farthest from what was picked before.
Each pick changes the distance of every point, which makes one pass over all points a pick. Here a
pass serves many: the farthest points are compared with each other alone, for as long as the next
pick must be one of them, and only then all points learn of the picks, by one matrix product.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["greedy_coreset", "mean_distances", "random_projection"]

_CANDIDATES = 1024
_TABLE_ELEMENTS = 1 << 22  # of distances held at a time


@torch.no_grad()
def greedy_coreset(
    points: Tensor,
    count: int,
    anchors: Tensor,
    *,
    weights: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Pick points greedily, each the one with the largest anchor; the first one on ties.

    A pick lowers the anchor of every point to its distance to the pick, times the point's weight.

    Args:
        points: ``[M, d]`` float32 or float64.
        count: How many to pick.
        anchors: ``[M]`` what each point begins with, see `mean_distances`.
        weights: ``[M]`` >= 0; default 1. Points of weight 0 are not picked after the first pick.
        progress: Called with the picks done and their number.

    Returns:
        ``[<= count]`` indices in the order picked; fewer where every anchor has come to 0.

    Source:
        PatchCore's approximate greedy sampler; with weights SoftPatch's. Distances in expanded
        form, as theirs.
    """
    norms = points.square().sum(1)
    anchors = anchors.to(points.dtype).clone()
    picks: list[int] = []
    while len(picks) < count:
        first = anchors.argmax()
        if float(anchors[first]) <= 0:
            break
        most = min(_CANDIDATES, len(points))
        values, members = anchors.topk(most)
        # What is no candidate has at most this; and after the first pick, at most that.
        bound = float(values[-1]) if most < len(points) else -math.inf
        members = torch.cat([members, first[None]]).unique()  # ascending
        between = _distances(points[members], norms[members], points[members], norms[members])
        if weights is not None:
            between *= weights[members]
        new = _picks_among(
            between.cpu().numpy(), anchors[members].cpu().numpy(), bound, count - len(picks)
        )
        chosen = members[torch.from_numpy(new).to(members.device)]
        picks += chosen.tolist()
        if progress is not None:
            progress(len(picks), count)
        if len(picks) < count:
            _lower(anchors, points, norms, chosen, weights)
    return torch.tensor(picks, dtype=torch.long, device=points.device)


def _picks_among(between: np.ndarray, anchors: np.ndarray, bound: float, count: int) -> np.ndarray:
    """Return the next picks, by their places among the candidates.

    Args:
        between: ``[C, C]`` weighted distances from each candidate (row) to all.
        anchors: ``[C]``; changed.
        bound: Anchors of all other points are at most this.
        count: Picks wanted.
    """
    picks: list[int] = []
    while len(picks) < count:
        place = int(anchors.argmax())
        # The first pick is known to be the farthest of all points.
        if picks and (anchors[place] <= bound or anchors[place] <= 0):
            break
        picks.append(place)
        np.minimum(anchors, between[place], out=anchors)
    return np.array(picks)


def _lower(
    anchors: Tensor, points: Tensor, norms: Tensor, chosen: Tensor, weights: Tensor | None
) -> None:
    """Lower all anchors to the distances from the chosen points."""
    picked, lengths = points[chosen], norms[chosen]
    step = max(1, _TABLE_ELEMENTS // len(chosen))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        least = _distances(points[part], norms[part], picked, lengths).amin(1)
        if weights is not None:
            least *= weights[part]
        torch.minimum(anchors[part], least, out=anchors[part])


def mean_distances(points: Tensor, start: Tensor) -> Tensor:
    """Return ``[M]`` mean distances of the points to those with indices ``start``."""
    norms = points.square().sum(1)
    step = max(1, _TABLE_ELEMENTS // len(start))
    means = [
        _distances(part, part.square().sum(1), points[start], norms[start]).mean(1)
        for part in points.split(step)
    ]
    return torch.cat(means)


def random_projection(width: int, channels: int, generator: torch.Generator) -> Tensor:
    """Return ``[width, channels]`` weights of a random linear layer without bias.

    Source:
        PatchCore projects by a new linear layer of torch: uniform within 1 / sqrt(channels).
    """
    reach = 1 / math.sqrt(channels)
    return torch.empty(width, channels).uniform_(-reach, reach, generator=generator)


def _distances(left: Tensor, left_norms: Tensor, right: Tensor, right_norms: Tensor) -> Tensor:
    """Return ``[L, R]`` Euclidean distances."""
    table = torch.addmm(right_norms, left, right.T, alpha=-2).add_(left_norms[:, None])
    return table.clamp_(min=0).sqrt_()
