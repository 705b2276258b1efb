"""InReaCh: a bank of the patches that recur across training images, without training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from meds_plugin.rivals.base import Scores, all_features
from meds_plugin.rivals.local_features import LocalFeatures
from meds_plugin.rivals.maps import resized_maps
from meds_plugin.rivals.search import nearest
from meds_plugin.rivals.settings import (
    require_numbers,
    require_odd,
    require_one_of,
    require_whole,
)
from meds_plugin.utils.errors import UserError, require
from meds_plugin.utils.progress import counter, track
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from meds_plugin.encoders.base import FrozenEncoder
    from meds_plugin.rivals.base import PatchFeatures

__all__ = [
    "Channels",
    "ColumnOrder",
    "InReach",
    "associations",
    "asymmetry",
    "channels",
    "mutual_neighbours",
    "positions",
    "reliable",
]

ColumnOrder = Literal["intended", "released"]

_ASYMMETRIC = 1000.0  # squared grey levels of 0..255
_FEWEST = 3  # two members are equally far from their mean: no spread, none kept
_ROWS = 1 << 13  # vectors held in double precision at a time


class Channels(NamedTuple):
    """Patches that show the same thing in several images; at most one of each image.

    Attributes:
        rows: ``[M]`` members, as image * P + patch; channel by channel.
        channel: ``[M]`` the channel of each, ascending.
    """

    rows: Tensor
    channel: Tensor


@dataclass(frozen=True)
class InReach:
    """InReaCh (ICCV 2023): distances to the patches of long, tight channels.

    A patch's score is the squared Euclidean distance to the nearest member of the bank; a training
    image is not compared with members of its own. An image's score is the maximum of its smoothed
    map.

    Attributes:
        seeds: Images whose patches start channels; all, if there are no more.
        min_length: Channels have more members than this.
        max_std: Members are less far from their channel's mean than this many standard deviations
            of these distances.
        position: Whether positions count as features; ``auto``: if the mean image, mirrored along
            its diagonal, differs from itself.
        position_weight: Weight of the positions, which range from 0 to 1.
        column_order: ``intended``: the seed's patch starts a channel. ``released``: patches of the
            seed and the other image are swapped, as in the published code.
        shuffle: Sample the seed images; otherwise take the first ones, as the authors do.
        sigma: Standard deviation in pixels of the Gaussian that smooths maps.
        patch: Side of a feature's neighbourhood in patches.
        width: Channels of a feature.
        by_image: Whether the network's batch norms use the statistics of each image alone, as in
            the published code, which runs it in training mode.

    Raises:
        UserError: Naming the key that is wrong.

    Source:
        McIntosh & Albu, "Inter-Realization Channels: Unsupervised Anomaly Detection Beyond
        One-Class Classification".
    """

    seeds: int = 10
    min_length: int = 3
    max_std: float = 5.0
    position: Literal["auto"] | bool = "auto"
    position_weight: float = 5.0
    column_order: ColumnOrder = "intended"
    shuffle: bool = True
    sigma: float = 13.0
    patch: int = 3
    width: int = 1024
    by_image: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        whole = ("seeds", "min_length", "width")
        require_whole("inreach", 1, {key: getattr(self, key) for key in whole})
        require_odd("inreach", {"patch": self.patch})
        numbers = ("max_std", "position_weight", "sigma")
        require_numbers("inreach", {key: getattr(self, key) for key in numbers})
        require(self.max_std > 0, "inreach.max_std", "above 0", self.max_std)
        automatic = self.position == "auto" or isinstance(self.position, bool)
        require(automatic, "inreach.position", "auto, true or false", self.position)
        require_one_of("inreach", get_args(ColumnOrder), {"column_order": self.column_order})
        for key in ("shuffle", "by_image"):
            value = getattr(self, key)
            require(isinstance(value, bool), f"inreach.{key}", "true or false", value)

    def features(self, encoder: FrozenEncoder) -> nn.Module:
        """Return the module that makes features of patches: images -> ``[B, D, h, w]``."""
        return LocalFeatures(encoder, patch=self.patch, width=self.width, by_image=self.by_image)

    @torch.no_grad()
    def fit(self, features: PatchFeatures, *, group: str, seed: int, progress: bool) -> _Fit:
        """Find a category's channels and score its training images.

        Args:
            features: Its training images.
            group: Its name; the seed images are drawn for it.
            seed: The run's seed.
            progress: Show progress bars.

        Raises:
            UserError: If there are too few images, or no channel passes.
        """
        count, needed = len(features), max(self.min_length + 1, _FEWEST)
        if count < needed:
            msg = (
                f"{group}: inreach needs at least {needed} training images where "
                f"inreach.min_length={self.min_length} ({_FEWEST} where it is less), got {count}"
            )
            raise UserError(msg)
        places = self._places(features, group)
        images = all_features(features)
        if places is not None:
            images = torch.cat([images, places.expand(count, -1, -1)], dim=2)
        generator = torch_generator(seed, "inreach", group)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        with counter(f"channels of {group}", enabled=progress) as report:
            found = associations(images, order, self.seeds, progress=report)
        vectors = images.flatten(0, 1)
        passed = reliable(
            vectors, channels(*found, self.column_order), self.min_length, self.max_std
        )
        rows = passed.rows.unique().to(images.device)
        if len(rows) == 0:
            msg = (
                f"{group}: no channel passes; lower inreach.min_length={self.min_length} or raise "
                f"inreach.max_std={self.max_std} (copies of one image never pass)"
            )
            raise UserError(msg)
        bank = vectors[rows]
        # A channel that passed has members of two images or more: some are always left.
        owners = rows // images.shape[1]
        scores = _Collected(self, features)
        for image in track(range(count), description=f"scores of {group}", enabled=progress):
            distances, _ = nearest(images[image], bank, left_out=owners == image)
            scores.add(range(image, image + 1), distances)
        return _Fit(self, bank, places, scores.done())

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` of patches, repeated and smoothed, as ``[n, H, W]``."""
        return resized_maps(maps, size, resampling="nearest", sigma=self.sigma)

    def _places(self, features: PatchFeatures, group: str) -> Tensor | None:
        """Return ``[P, 2]`` features of the places, or ``None`` where they do not count.

        Raises:
            UserError: If the images cannot be mirrored at their diagonal.
        """
        if self.position == "auto":
            height, width = features.image_size
            if height != width:
                msg = (
                    f"{group}: inreach.position=auto needs square images, got {height} x {width}; "
                    "set it true or false"
                )
                raise UserError(msg)
            wanted = asymmetry(features.mean_image()) >= _ASYMMETRIC
        else:
            wanted = self.position
        if not wanted:
            return None
        return positions(features.grid, self.position_weight).to(features.device)


def asymmetry(image: Tensor) -> float:
    """Return by how much an image differs from its mirror image at the diagonal.

    Args:
        image: ``[3, S, S]`` float64 in [0, 1].

    Returns:
        The mean squared difference in grey levels of 0..255, in [0, 255^2]; rounded to half
        precision at each step, as the authors do.
    """
    levels = (255 * image).half()
    squares = (levels - levels.mT).square()
    return squares.float().mean().half().item()


def positions(grid: tuple[int, int], weight: float) -> Tensor:
    """Return ``[h * w, 2]`` places (x, y) of the patches of a grid (h, w), in [0, weight)."""
    y, x = (torch.arange(side) * (weight / side) for side in grid)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2).flatten(0, 1)


def mutual_neighbours(seed: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Find the patches of two images that are each other's nearest.

    Args:
        seed: ``[P, D]`` patches of the seed image.
        other: ``[P', D]`` patches of the other image.

    Returns:
        ``[P']`` Euclidean distances of the other image's patches to their nearest in the seed
        image, and ``[P']`` which this is, -1 where it has a nearer one itself.
    """
    table = torch.cdist(other, seed)
    distances, partners = table.min(dim=1)
    back = table.argmin(dim=0)[partners]
    mutual = back == torch.arange(len(other), device=other.device)
    return distances, partners.where(mutual, -1)


@torch.no_grad()
def associations(
    images: Tensor,
    order: Tensor,
    seeds: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Associate the patches of each image with those of the seed images that come before it.

    A patch belongs to the seed image where its nearest patch is nearest of all, and only if the
    two are each other's nearest.

    Args:
        images: ``[N, P, D]``.
        order: ``[N]`` the images' order; the first ones are the seed images.
        seeds: How many of these; all, if there are no more.
        progress: Called with the images done and their number.

    Returns:
        ``[N, P]`` the seed image of each patch and ``[N, P]`` the patch of it, both -1 where there
        is none; on the CPU.
    """
    number, patches = images.shape[:2]
    owners = torch.full((2, number, patches), -1, device=images.device)
    ordered: list[int] = order.tolist()
    for place, image in enumerate(ordered):
        least = images.new_full((patches,), torch.inf)
        for seed in ordered[: min(place, seeds)]:
            distances, partners = mutual_neighbours(images[seed], images[image])
            nearer = distances < least
            least = least.where(~nearer, distances)
            owners[0, image, nearer] = torch.where(partners < 0, -1, seed)[nearer]
            owners[1, image, nearer] = partners[nearer]
        if progress is not None:
            progress(place + 1, number)
    seed_images, seed_patches = owners.cpu()
    return seed_images, seed_patches


def channels(seed_images: Tensor, seed_patches: Tensor, column_order: ColumnOrder) -> Channels:
    """Make channels: a patch of a seed image and all patches associated with it.

    Args:
        seed_images: ``[N, P]``, see `associations`.
        seed_patches: ``[N, P]``.
        column_order: See `InReach`. ``released`` swaps the two patches of each association: right
            only where they stand at the same place.

    Returns:
        The channels; the patches that begin one come first in it.
    """
    patches = seed_images.shape[1]
    images, others = (seed_images >= 0).nonzero(as_tuple=True)
    begins, members = seed_patches[images, others], others
    if column_order == "released":
        begins, members = members, begins
    heads, numbers = (seed_images[images, others] * patches + begins).unique(return_inverse=True)
    rows = torch.cat([heads, images * patches + members])
    channel, order = torch.cat([torch.arange(len(heads)), numbers]).sort(stable=True)
    return Channels(rows[order], channel)


def reliable(vectors: Tensor, found: Channels, min_length: int, max_std: float) -> Channels:
    """Return what is left of long channels without their distant members, if still long.

    Args:
        vectors: ``[N * P, D]`` of all patches, on any device.
        found: Channels.
        min_length: They need more members than this, before and after.
        max_std: Members stay if their distance to the channel's mean is less than this many
            standard deviations of all its members' distances; none stays where these are equal.
    """
    rows, channel = _long(found, min_length)
    lengths = channel.bincount()[:, None].clamp(min=1)
    parts = [*zip(rows.split(_ROWS), channel.split(_ROWS), strict=True)]

    def taken(some: Tensor) -> Tensor:
        # Sums in double precision, one after the other: the same on every device.
        return vectors[some.to(vectors.device)].cpu().double()

    means = torch.zeros(len(lengths), vectors.shape[1], dtype=torch.float64)
    for some, numbers in parts:
        means.index_add_(0, numbers, taken(some))
    means /= lengths
    radii = torch.cat([(taken(some) - means[numbers]).norm(dim=1) for some, numbers in parts])
    spreads = _mean_of(channel, (radii - _mean_of(channel, radii)).square()).sqrt()
    kept = radii < max_std * spreads
    return _long(Channels(rows[kept], channel[kept]), min_length)


def _long(found: Channels, min_length: int) -> Channels:
    """Return the channels of more than some members."""
    kept = found.channel.bincount()[found.channel] > min_length
    return Channels(found.rows[kept], found.channel[kept])


def _mean_of(channel: Tensor, values: Tensor) -> Tensor:
    """Return ``[M]`` float64 means of the members' values over their channels."""
    return (channel.bincount(values) / channel.bincount())[channel]


@dataclass(frozen=True)
class _Fit:
    """A category's bank ``[K, D]``, its places ``[P, 2]`` where they count, training scores."""

    rival: InReach
    bank: Tensor = field(repr=False)
    places: Tensor | None = field(repr=False)
    training: Scores = field(repr=False)

    @torch.no_grad()
    def score(self, features: PatchFeatures) -> Scores:
        """Score other images of the category by their distance to the bank."""
        scores = _Collected(self.rival, features)
        for images, values in features:
            if self.places is not None:
                values = torch.cat([values, self.places.expand(len(values), -1, -1)], dim=2)
            distances, _ = nearest(values.flatten(0, 1), self.bank)
            scores.add(images, distances)
        return scores.done()


class _Collected:
    """Scores of images as they come."""

    def __init__(self, rival: InReach, features: PatchFeatures) -> None:
        self.rival, self.grid, self.size = rival, features.grid, features.image_size
        height, width = self.grid
        self.maps = torch.empty(len(features), height * width)
        self.images = torch.empty(len(features))

    def add(self, images: range, distances: Tensor) -> None:
        """Take the scores of some images' patches, and make the images' own."""
        maps = distances.view(len(images), *self.grid)
        places = slice(images.start, images.stop)
        self.maps[places] = maps.flatten(1).cpu()
        self.images[places] = self.rival.pixel_maps(maps, self.size).amax((1, 2)).cpu()

    def done(self) -> Scores:
        """Return all scores."""
        return Scores(self.maps, self.images)
