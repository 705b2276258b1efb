"""PatchCore: the distance to a coreset of all training patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from meds_plugin.rivals.base import Scores, all_features
from meds_plugin.rivals.coreset import greedy_coreset, mean_distances, random_projection
from meds_plugin.rivals.local_features import LocalFeatures
from meds_plugin.rivals.maps import resized_maps
from meds_plugin.rivals.search import nearest
from meds_plugin.rivals.settings import (
    require_numbers,
    require_odd,
    require_shares,
    require_whole,
)
from meds_plugin.utils.progress import counter
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from torch import Tensor

    from meds_plugin.encoders.base import FrozenEncoder
    from meds_plugin.rivals.base import PatchFeatures

__all__ = [
    "Bank",
    "CoresetMethod",
    "PatchCore",
    "PatchCoreFit",
    "build_bank",
    "projected",
    "score_by_bank",
]


@dataclass(frozen=True)
class CoresetMethod:
    """Settings that PatchCore and SoftPatch have in common.

    Attributes:
        coreset: Share of all training patches that is stored.
        projection: Channels of the random projection in which the coreset is picked; 0: none. A
            projection to as many channels as there are is left out, too.
        starts: Random patches from whose mean distance picking begins.
        patch: Side of a neighbourhood in patches, odd (see `neighbourhoods`).
        width: Channels of the features.
        sigma: Standard deviation of the smoothed map in pixels; 0: not smoothed.
    """

    coreset: float = 0.1
    projection: int = 128
    starts: int = 10
    patch: int = 3
    width: int = 1024
    sigma: float = 4.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        name = type(self).__name__.lower()
        require_shares(name, {"coreset": self.coreset})
        require_whole(name, 0, {"projection": self.projection})
        require_whole(name, 1, {"starts": self.starts, "width": self.width})
        require_odd(name, {"patch": self.patch})
        require_numbers(name, {"sigma": self.sigma})

    def features(self, encoder: FrozenEncoder) -> LocalFeatures:
        """Return the module that makes PatchCore's features."""
        return LocalFeatures(encoder, patch=self.patch, width=self.width)

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` as smoothed maps ``[n, H, W]``."""
        return resized_maps(maps, size, sigma=self.sigma)


@dataclass(frozen=True)
class Bank:
    """Stored patches.

    Attributes:
        features: ``[K, D]``.
        picks: ``[K]`` their places among all N * P training patches, in the order picked.
        images: ``[K]`` the training image that each comes from.
        weights: ``[K]`` that distances are multiplied by, or ``None``.
    """

    features: Tensor
    picks: Tensor
    images: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class PatchCoreFit:
    """A bank, and how it scores.

    Attributes:
        bank: The stored patches.
        neighbours: How many of the nearest stored patches count.
        training: Scores of the training images.
    """

    bank: Bank
    neighbours: int
    training: Scores

    def score(self, features: PatchFeatures) -> Scores:
        """Score images: squared distances; an image's score is its highest."""
        return score_by_bank(self.bank, features, neighbours=self.neighbours)


@dataclass(frozen=True)
class PatchCore(CoresetMethod):
    """PatchCore as in its authors' code, which expects no noise and removes none.

    Attributes:
        neighbours: Nearest stored patches whose squared distances are averaged.

    Source:
        Roth et al., CVPR 2022; docs/method.md, section 12.
    """

    neighbours: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        super().__post_init__()
        require_whole("patchcore", 1, {"neighbours": self.neighbours})

    def fit(
        self, features: PatchFeatures, *, group: str, seed: int, progress: bool = False
    ) -> PatchCoreFit:
        """Store a coreset. Training images are scored by what others have in it."""
        generator = torch_generator(seed, "patchcore", group)
        points = projected(features, self.projection, generator)
        bank = build_bank(
            features,
            points.flatten(0, 1),
            share=self.coreset,
            starts=self.starts,
            generator=generator,
            label=f"coreset of {group}" if progress else None,
        )
        training = score_by_bank(bank, features, neighbours=self.neighbours, among_others=True)
        return PatchCoreFit(bank, self.neighbours, training)


def projected(features: PatchFeatures, width: int, generator: torch.Generator) -> Tensor:
    """Return ``[N, P, width]`` random projections of all features, made a batch at a time.

    Args:
        features: Of N images.
        width: 0, or as many channels as there are: the features as they are.
        generator: Draws the projection.
    """
    weight: Tensor | None = None

    def change(values: Tensor) -> Tensor:
        nonlocal weight
        channels = values.shape[2]
        if width in (0, channels):
            return values
        if weight is None:
            weight = random_projection(width, channels, generator).to(values)
        return values @ weight.T

    return all_features(features, change)


def build_bank(
    features: PatchFeatures,
    points: Tensor,
    *,
    share: float,
    starts: int,
    generator: torch.Generator,
    weights: Tensor | None = None,
    label: str | None = None,
) -> Bank:
    """Store a greedy coreset of the features.

    Args:
        features: Of N images of P patches.
        points: ``[N * P, d]`` their projections.
        share: Share of all patches that is stored; at least one is.
        starts: How many random patches picking starts from.
        generator: Draws these.
        weights: ``[N * P]`` of the distances while picking (see `greedy_coreset`).
        label: Name of a progress bar; ``None`` shows none.
    """
    start = torch.randperm(len(points), generator=generator)[:starts].to(points.device)
    with counter(label or "", enabled=label is not None) as count:
        picks = greedy_coreset(
            points,
            max(1, int(len(points) * share)),
            mean_distances(points, start),
            weights=weights,
            progress=count,
        )
    if len(picks) == 0:  # identical patches: one stands for all
        picks = points.new_zeros(1, dtype=torch.long)
    patches = len(points) // len(features)
    return Bank(gather_patches(features, picks), picks, picks // patches)


def gather_patches(features: PatchFeatures, picks: Tensor) -> Tensor:
    """Return the features ``[K, D]`` of patches by their indices among all N * P."""
    rows: Tensor | None = None
    for places, values in features:
        patches = values.shape[1]
        first, last = places.start * patches, places.stop * patches
        here = ((picks >= first) & (picks < last)).nonzero().squeeze(1)
        if rows is None:
            rows = values.new_empty(len(picks), values.shape[2])
        rows[here] = values.flatten(0, 1)[picks[here] - first]
    if rows is None:
        msg = "there are no images"
        raise ValueError(msg)
    return rows


def score_by_bank(
    bank: Bank, features: PatchFeatures, *, neighbours: int = 1, among_others: bool = False
) -> Scores:
    """Score images by the nearest stored patches.

    Args:
        bank: The stored patches.
        features: Of the images.
        neighbours: How many of the nearest count; weights go with the nearest alone.
        among_others: These are the training images: leave out what an image itself has in the
            bank, unless the bank has nothing else.
    """
    maps: list[Tensor] = []
    for places, values in features:
        for image, patches in zip(places, values, strict=True):
            own = bank.images == image if among_others else None
            if own is not None and bool(own.all()):
                own = None
            distances, found = nearest(patches, bank.features, neighbours, left_out=own)
            row = distances.mean(1)
            maps.append((row if bank.weights is None else row * bank.weights[found[:, 0]]).cpu())
    stacked = torch.stack(maps)
    return Scores(stacked, stacked.amax(1))
