"""MuSc: images score each other, by how far their patches are from the most alike of the others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.memory.aggregation import RankWeightedSum
from meds_plugin.memory.pairwise import aggregate_distances
from meds_plugin.memory.patch_vectors import PatchVectors
from meds_plugin.memory.settings import check_interval
from meds_plugin.memory.subsampling import interval_weights, on_device
from meds_plugin.rivals.base import Scores
from meds_plugin.rivals.local_features import neighbourhoods
from meds_plugin.rivals.maps import resized_maps
from meds_plugin.utils.errors import UserError, require
from meds_plugin.utils.progress import counter
from meds_plugin.utils.values import is_list, is_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.encoders.base import FrozenEncoder
    from meds_plugin.rivals.base import PatchFeatures

__all__ = ["LayerFeatures", "MuSc", "MuScFit", "rescored"]


class LayerFeatures(nn.Module):
    """All target layers of an encoder side by side, each normalised over channels and patches.

    Args:
        encoder: Any.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = encoder.channels

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return ``[B, C_1 + ... + C_L, h, w]`` of normalised images ``[B, 3, H, W]``."""
        maps = [each.float() for each in self.encoder.layer_maps(images)]
        return torch.cat([F.layer_norm(each, each.shape[1:]) for each in maps], dim=1)


@dataclass(frozen=True)
class MuSc:
    """MuSc with the training images as the unlabelled set; test images are scored against it.

    Attributes:
        degrees: Sides of the neighbourhoods of patches, odd.
        interval: Shares of the sorted distances to the other images, between which they are
            averaged.
        neighbours: Numbers of most similar images, including itself, over which an image's score is
            averaged; [1]: no averaging.

    Source:
        Li et al., ICLR 2024; docs/method.md, section 12. Images are compared by the mean of their
        patches, while the authors use CLIP's class token.
    """

    degrees: Sequence[int] = (1, 3, 5)
    interval: Sequence[float] = (0.0, 0.3)
    neighbours: Sequence[int] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        for key, given, step, expected in (
            ("degrees", self.degrees, 2, "a list of odd whole numbers"),
            ("neighbours", self.neighbours, 1, "a list of whole numbers, 1 or more"),
        ):
            ok = is_list(given) and len(given) > 0
            ok = ok and all(is_whole(v) and v >= 1 and (v - 1) % step == 0 for v in given)
            require(ok, f"musc.{key}", expected, given)
        check_interval("musc.interval", self.interval)

    def features(self, encoder: FrozenEncoder) -> LayerFeatures:
        """Return the module that makes its features."""
        return LayerFeatures(encoder)

    def fit(
        self, features: PatchFeatures, *, group: str, seed: int, progress: bool = False
    ) -> MuScFit:
        """Let the training images score each other.

        Raises:
            UserError: If there is but one.
        """
        del seed  # nothing is random
        if len(features) < 2:
            msg = f"method=musc compares images with each other, but {group} has only one"
            raise UserError(msg)
        return MuScFit(self, features, group, progress=progress)

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` as maps ``[n, H, W]``, not smoothed."""
        return resized_maps(maps, size, resampling="aligned", sigma=0)


class MuScFit:
    """A set of images that score each other and others.

    Args:
        settings: Of the method.
        features: The images'.
        group: Their name, for progress bars.
        progress: Show these.
    """

    def __init__(
        self, settings: MuSc, features: PatchFeatures, group: str, *, progress: bool
    ) -> None:
        self.settings = settings
        self._features = features
        maps = self._maps(None, f"mutual scores of {group}" if progress else None)
        self._scores = maps.amax(1)
        self._means = _mean_features(features)
        similar = (self._means @ self._means.T).fill_diagonal_(-torch.inf)
        self.training = Scores(maps, self._rescored(self._scores, similar))

    def score(self, features: PatchFeatures) -> Scores:
        """Score other images, each on its own, by their distances to these."""
        maps = self._maps(features, None)
        similar = _mean_features(features) @ self._means.T
        return Scores(maps, self._rescored(maps.amax(1), similar))

    def _rescored(self, scores: Tensor, similar: Tensor) -> Tensor:
        return rescored(scores, self._scores, similar, self.settings.neighbours)

    def _maps(self, queries: PatchFeatures | None, label: str | None) -> Tensor:
        """Return maps ``[n, P]`` of the queries, or of the images themselves."""
        others = len(self._features) - (queries is None)
        weights = interval_weights(others, self.settings.interval)
        total: Tensor | None = None
        rounds = list(product(self.settings.degrees, range(len(self._features.layers) or 1)))
        with counter(label or "", enabled=label is not None) as count:
            for done, (degree, layer) in enumerate(rounds, start=1):
                stored = _vectors(self._features, degree, layer)
                maps = aggregate_distances(
                    stored,
                    _RootMean(on_device(weights[None], stored.device)),
                    queries=None if queries is None else _vectors(queries, degree, layer),
                    leave_self_out=queries is None,
                )[0].cpu()
                total = maps if total is None else total + maps
                count(done, len(rounds))
        if total is None:
            msg = "there is nothing to compare"
            raise ValueError(msg)
        return total / len(rounds)


class _RootMean(RankWeightedSum):
    """Sums of Euclidean distances between unit vectors, whose squares are 2 (1 - cos)."""

    def scores(self, image: int, state: Tensor) -> Tensor:
        return super().scores(image, (2 * state).sqrt())


def rescored(scores: Tensor, known: Tensor, similar: Tensor, neighbours: Sequence[int]) -> Tensor:
    """Average the scores of images with those of the most similar known ones.

    Args:
        scores: ``[Q]`` of the images.
        known: ``[N]`` of the known ones.
        similar: ``[Q, N]`` cosines between both; -inf: an image is known itself.
        neighbours: How many images share in the average, the image itself among them, whose weight
            is 1; those of the others are their cosines. Several averages are averaged again.

    Returns:
        ``[Q]`` scores.
    """
    most = min(max(neighbours) - 1, int(similar.isfinite().sum(1).min()))
    weights, who = similar.topk(most, dim=1)
    weights = torch.cat([scores.new_ones(len(scores), 1), weights.clamp(min=0)], dim=1)
    values = torch.cat([scores[:, None], known[who]], dim=1)
    sums, norms = (weights * values).cumsum(1), weights.cumsum(1)
    places = torch.tensor([min(k - 1, most) for k in neighbours])
    return (sums / norms)[:, places].mean(1)


def _vectors(features: PatchFeatures, degree: int, layer: int) -> PatchVectors:
    """Return the unit vectors of all images for one neighbourhood and one layer."""
    vectors: PatchVectors | None = None
    for places, values in features:
        part = values.split(features.layers, dim=2)[layer] if features.layers else values
        maps = part.mT.unflatten(2, features.grid)
        seen = neighbourhoods(maps, patch=degree, width=part.shape[2]).flatten(2).mT
        if vectors is None:
            vectors = PatchVectors(len(features), *seen.shape[1:], device=seen.device)
        vectors.put(places, seen)
    if vectors is None:
        msg = "there are no images"
        raise ValueError(msg)
    return vectors


def _mean_features(features: PatchFeatures) -> Tensor:
    """Return unit vectors ``[N, D]`` that stand for whole images."""
    return F.normalize(torch.cat([values.mean(1).cpu() for _, values in features]), dim=1)
