"""SoftPatch: PatchCore without the patches that look like noise, the others weighted by doubt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from meds_plugin.rivals.base import Scores
from meds_plugin.rivals.patchcore import (
    CoresetMethod,
    PatchCoreFit,
    build_bank,
    projected,
)
from meds_plugin.rivals.settings import require_one_of, require_whole
from meds_plugin.utils.errors import require
from meds_plugin.utils.rng import torch_generator
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from meds_plugin.rivals.base import PatchFeatures

__all__ = ["NoiseScore", "SoftPatch", "gaussian", "lof", "nearest_other", "noise_threshold"]

NoiseScore = Literal["lof", "nearest", "gaussian"]

_TABLE_ELEMENTS = 1 << 22  # of distances held at a time
_DENSITY = 1e-10  # keeps the density of identical patches finite, as scikit-learn does
_RIDGE = 0.01  # added to the variances


@dataclass(frozen=True)
class SoftPatch(CoresetMethod):
    """SoftPatch as its authors run it.

    Attributes:
        starts: See `CoresetMethod`; 128 in the authors' code, by mixed-up arguments.
        noise: Noise score of a patch among the patches at its position in other images:
            ``lof`` (local outlier factor), ``nearest`` (distance to the nearest) or ``gaussian``
            (Mahalanobis distance to their mean).
        lof_k: Neighbours of the local outlier factor; the authors' command asks for 6 and gets 5.
        dropped: Share of all patches, those with the highest noise scores, that is never stored.
        soft: Whether distances are multiplied by the noise score of the stored patch.

    Source:
        Jiang et al., NeurIPS 2022; docs/method.md, section 12.
    """

    starts: int = 128
    noise: NoiseScore = "lof"
    lof_k: int = 5
    dropped: float = 0.15
    soft: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        super().__post_init__()
        require_one_of("softpatch", get_args(NoiseScore), {"noise": self.noise})
        require_whole("softpatch", 1, {"lof_k": self.lof_k})
        ok = is_number(self.dropped) and 0 <= self.dropped < 1
        require(ok, "softpatch.dropped", "a share in [0, 1)", self.dropped)
        require(isinstance(self.soft, bool), "softpatch.soft", "true or false", self.soft)

    def fit(
        self, features: PatchFeatures, *, group: str, seed: int, progress: bool = False
    ) -> PatchCoreFit:
        """Store a coreset of what does not look like noise.

        Training images are scored by the noise scores of their patches.
        """
        generator = torch_generator(seed, "softpatch", group)
        noise = self.noise_scores(projected(features, self.projection, generator))
        kept = (noise <= noise_threshold(noise, self.dropped)).flatten()
        bank = build_bank(
            features,
            projected(features, self.projection, generator).flatten(0, 1),
            share=self.coreset,
            starts=self.starts,
            generator=generator,
            weights=kept.to(noise.dtype),
            label=f"coreset of {group}" if progress else None,
        )
        if self.soft:
            bank = replace(bank, weights=noise.flatten()[bank.picks].clamp(min=0))
        maps = noise.float().cpu()
        return PatchCoreFit(bank, 1, Scores(maps, maps.amax(1)))

    def noise_scores(self, points: Tensor) -> Tensor:
        """Return ``[N, P]`` noise scores of points ``[N, P, d]``, higher = more like noise."""
        by_place = points.transpose(0, 1)
        if len(points) == 1:  # nothing to compare with
            return points.new_ones(points.shape[:2])
        if self.noise == "lof":
            return lof(by_place, self.lof_k).T
        return (nearest_other if self.noise == "nearest" else gaussian)(by_place).T


def noise_threshold(noise: Tensor, dropped: float) -> float:
    """Return the quantile of all noise scores above which patches are dropped."""
    return float(np.quantile(noise.cpu().numpy(), 1 - dropped))


def lof(points: Tensor, k: int) -> Tensor:
    """Return local outlier factors within each set of points.

    Args:
        points: ``[L, N, d]``, L sets of N >= 2 points.
        k: Neighbours; at most N - 1 are taken.

    Returns:
        ``[L, N]`` of the points' type: about 1 for inliers, higher = farther out.

    Source:
        Breunig et al. 2000, as scikit-learn computes it.
    """
    count = points.shape[1]
    k = min(k, count - 1)
    parts = []
    for part in _chunks(points):
        distances = _between(part)
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        near, who = distances.topk(k, dim=2, largest=False)
        reach = torch.maximum(near, _of_neighbours(near[..., -1], who))
        density = 1 / (reach.mean(2) + _DENSITY)
        parts.append(_of_neighbours(density, who).mean(2) / density)
    return torch.cat(parts)


def nearest_other(points: Tensor) -> Tensor:
    """Return ``[L, N]``: 1 + the distance of each point to the nearest other of its set.

    The authors add the distance to the point itself, which their arithmetic makes about 0.02.
    """
    parts = []
    for part in _chunks(points):
        distances = _between(part)
        distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        parts.append(1 + distances.amin(2))
    return torch.cat(parts)


def gaussian(points: Tensor) -> Tensor:
    """Return ``[L, N]``: 1 + the Mahalanobis distance of each point to the mean of its set.

    The covariance has 0.01 added to its diagonal.
    """
    parts = []
    for part in points.split(max(1, _TABLE_ELEMENTS // points.shape[2] ** 2)):
        centred = (part - part.mean(1, keepdim=True)).double()
        covariance = centred.mT @ centred / (part.shape[1] - 1)
        covariance.diagonal(dim1=1, dim2=2).add_(_RIDGE)
        solved = torch.linalg.solve(covariance, centred.mT).mT
        parts.append(1 + (centred * solved).sum(2).clamp(min=0).sqrt().to(points.dtype))
    return torch.cat(parts)


def _chunks(points: Tensor) -> Iterator[Tensor]:
    """Yield as many sets at a time as their distances have room for."""
    yield from points.split(max(1, _TABLE_ELEMENTS // points.shape[1] ** 2))


def _between(points: Tensor) -> Tensor:
    """Return ``[L, N, N]`` Euclidean distances, exact for points far from the origin, too."""
    centred = points - points.mean(1, keepdim=True)
    return torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist")


def _of_neighbours(values: Tensor, who: Tensor) -> Tensor:
    """Return the values ``[L, N]`` of each point's neighbours ``[L, N, k]``, as ``[L, N, k]``."""
    return values.gather(1, who.flatten(1)).view_as(who)
