"""FUN-AD: a small network on frozen features that learns from labels it gives itself.

Images that it finds normal fill a memory bank at every step; patches far from the bank are its
examples of anomalies.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from meds_plugin.rivals.base import Scores, all_features
from meds_plugin.rivals.fun_ad_labels import (
    PseudoLabelLosses,
    bank_distances,
    check_scores_finite,
    mutual_pairs,
    noise_deviation,
    normal_images,
    pseudo_label_losses,
)
from meds_plugin.rivals.maps import resized_maps
from meds_plugin.rivals.settings import require_numbers, require_shares, require_whole
from meds_plugin.utils.errors import print_error, require
from meds_plugin.utils.process import launched_rank
from meds_plugin.utils.progress import track
from meds_plugin.utils.rng import torch_generator, torch_seeded
from meds_plugin.utils.values import is_list, is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from meds_plugin.encoders.base import FrozenEncoder
    from meds_plugin.rivals.base import PatchFeatures

__all__ = [
    "FunAD",
    "FunADDraws",
    "FunADFit",
    "FunADHead",
    "GlobalAndLocal",
    "train_head",
    "training_step",
]

_SLOPE = 0.2
_PIECE = 16  # images that pass through the head at once


@dataclass(frozen=True)
class FunAD:
    """Settings of FUN-AD, by default its authors'; the method itself.

    A category of N images takes ``epochs * (N // batch_size)`` steps, each of which searches
    ``batch_size`` images in a bank of up to N / 2: hours on a GPU with the defaults.

    Attributes:
        epochs: Passes through the training images; the weights after the last are used.
        batch_size: Images per step. What does not fill a batch is left out of the epoch; if there
            are fewer images, one batch has all of them (the original takes no step).
        lr: Learning rate of RMSprop.
        momentum: Its momentum.
        bank: Share of the normal-looking images in the bank, at least one, in (0, 1].
        normal_below: An image looks normal below this share of the range of image scores.
        label_above: A patch is labelled anomalous above this share of the range of its batch's
            distances to the bank.
        noise_below: Patches between ``label_above`` and this share get Gaussian noise.
        smoothness: Weight of the difference between the scores of mutually nearest patches.
        refresh: Steps between scorings of all images, each of which samples a new bank; 1 as in
            the original, more is faster.
        hidden: Widths of the hidden layers.
        sigma: Gaussian that smooths maps, in pixels.

    Raises:
        UserError: Naming the key that is wrong.

    Source:
        FUN-AD (WACV 2025). Its authors pick the best epoch by the test set; this takes the last.
        Their two losses see the same noisy patches, so one forward pass serves both. They state a
        patent application and restrict commercial use of their code, which this is not.
    """

    epochs: int = 1500
    batch_size: int = 32
    lr: float = 2e-5
    momentum: float = 0.2
    bank: float = 0.5
    normal_below: float = 0.5
    label_above: float = 0.5
    noise_below: float = 0.9
    smoothness: float = 2.5
    refresh: int = 1
    hidden: Sequence[int] = (1024, 128)
    sigma: float = 4.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        section = "fun_ad"
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        require_whole(section, 1, {key: given[key] for key in ("epochs", "batch_size", "refresh")})
        require_shares(section, {key: given[key] for key in ("bank", "normal_below")})
        require_numbers(section, {key: given[key] for key in ("lr", "smoothness", "sigma")})
        require(self.lr > 0, "fun_ad.lr", "above 0", self.lr)
        for key in ("momentum", "label_above"):
            value = given[key]
            require(is_number(value) and 0 <= value < 1, f"fun_ad.{key}", "in [0, 1)", value)
        most = given["noise_below"]
        require(is_number(most) and 0 <= most <= 1, "fun_ad.noise_below", "in [0, 1]", most)
        positive = is_list(self.hidden) and all(is_whole(w) and w > 0 for w in self.hidden)
        expected = "whole numbers above 0, such as [1024,128]"
        require(positive and len(self.hidden) > 0, "fun_ad.hidden", expected, self.hidden)

    def features(self, encoder: FrozenEncoder) -> GlobalAndLocal:
        """Return the module that makes its features (see `GlobalAndLocal`)."""
        return GlobalAndLocal(encoder)

    def fit(self, features: PatchFeatures, *, group: str, seed: int, progress: bool) -> FunADFit:
        """Train a head on a category (see `Rival.fit`).

        Raises:
            UserError: If training diverges.
        """
        _tell_of_the_patent()
        with torch.inference_mode(mode=False), torch.enable_grad():
            values = all_features(features)
            with torch_seeded(seed, "fun_ad", group):
                head = FunADHead(values.shape[2], self.hidden)
            head.to(features.device)
            draws = FunADDraws(seed, group)
            train_head(head, values, self, draws, description=f"FUN-AD {group}", progress=progress)
            training = _scores(head, [values])
        check_scores_finite(training.maps)
        return FunADFit(head, training)

    def pixel_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return maps ``[n, h, w]`` of patches as ``[n, H, W]``: bilinear, then smoothed."""
        return resized_maps(maps, size, sigma=self.sigma)


class GlobalAndLocal(nn.Module):
    """Features of patches with their image's in front.

    Args:
        encoder: Makes both (see `FrozenEncoder.summary_and_features`).
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return ``[B, P, 2 * D]``: the image's vector, the same for all patches, and the patch's.

        Args:
            images: ``[B, 3, H, W]``, normalised as the encoder was trained.
        """
        summary, patches = self.encoder.summary_and_features(images)
        return torch.cat([summary[:, None].expand_as(patches), patches], dim=2)


class FunADHead(nn.Module):
    """The network that is trained; its parameters have the names of the original.

    Args:
        width: Of the features, D.
        hidden: Widths of the discriminator's hidden layers.
    """

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.adaptor = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(_SLOPE))
        layers: list[nn.Module] = []
        for narrower in hidden:
            layers += [nn.Linear(width, narrower), nn.LeakyReLU(_SLOPE)]
            width = narrower
        self.discriminator = nn.Sequential(*layers, nn.Linear(width, 1), nn.Sigmoid())

    def adapt(self, values: Tensor) -> Tensor:
        """Return adapted features ``[..., D]``, which distances are measured between."""
        adapted: Tensor = self.adaptor(values)
        return adapted

    def forward(self, values: Tensor) -> Tensor:
        """Return scores ``[...]`` in [0, 1] of features ``[..., D]``, higher = more anomalous."""
        scores: Tensor = self.discriminator(self.adapt(values))
        return scores[..., 0]


@dataclass(frozen=True)
class FunADFit:
    """A trained head.

    Attributes:
        head: The head.
        training: Scores of its training images; an image's is that of its worst patch.
    """

    head: FunADHead
    training: Scores

    def score(self, features: PatchFeatures) -> Scores:
        """Score other images of the category."""
        return _scores(self.head, (values for _, values in features))


class FunADDraws:
    """The random numbers of a category, each kind from a generator of its own.

    Args:
        seed: The run's seed.
        group: The category's name.
    """

    def __init__(self, seed: int, group: str) -> None:
        kinds = ("batches", "bank", "noise")
        self._of = {kind: torch_generator(seed, "fun_ad", group, kind) for kind in kinds}

    def order(self, count: int) -> Tensor:
        """Return the images of an epoch, shuffled."""
        return torch.randperm(count, generator=self._of["batches"])

    def bank(self, images: Tensor, count: int) -> Tensor:
        """Return some of the images, without replacement."""
        return images[torch.randperm(len(images), generator=self._of["bank"])[:count]]

    def noise(self, count: int, width: int) -> Tensor:
        """Return ``[count, width]`` numbers from the standard normal distribution."""
        return torch.randn(count, width, generator=self._of["noise"])


def train_head(
    head: FunADHead,
    values: Tensor,
    settings: FunAD,
    draws: FunADDraws,
    *,
    description: str = "FUN-AD",
    progress: bool = False,
) -> None:
    """Train a head in place.

    Args:
        head: On the features' device.
        values: ``[N, P, D]`` features of all images.
        settings: Of the training.
        draws: Random numbers.
        description: Of the progress bar.
        progress: Show it.

    Raises:
        UserError: If training diverges.
    """
    optimizer = torch.optim.RMSprop(head.parameters(), settings.lr, momentum=settings.momentum)
    size = min(settings.batch_size, len(values))
    batches = _batches(len(values), size, settings.epochs, draws)
    total = settings.epochs * (len(values) // size)
    drawn = torch.empty(0)
    for step, images in enumerate(
        track(batches, description=description, total=total, enabled=progress)
    ):
        if step % settings.refresh == 0:
            normal = normal_images(_patch_scores(head, values).amax(1), settings.normal_below)
            drawn = draws.bank(normal, max(int(settings.bank * len(normal)), 1))
        bank = _adapted(head, values, drawn)
        training_step(head, optimizer, values[images.to(values.device)], bank, settings, draws)


def training_step(
    head: FunADHead,
    optimizer: torch.optim.Optimizer,
    batch: Tensor,
    bank: Tensor,
    settings: FunAD,
    draws: FunADDraws,
) -> PseudoLabelLosses:
    """Label a batch by its distance to a bank and take a step.

    Args:
        head: Changed in place.
        optimizer: Of its parameters.
        batch: ``[B, P, D]`` features.
        bank: ``[K, D]`` adapted features.
        settings: Of the training.
        draws: Where the noise comes from.

    Returns:
        The losses before the step, not weighted.

    Raises:
        UserError: If distances are not finite.
    """
    with torch.no_grad():
        adapted = head.adapt(batch).flatten(0, 1)
    distances = bank_distances(adapted, bank).view(batch.shape[:2])
    anomalous = distances > settings.label_above
    unsure = anomalous & (distances < settings.noise_below)
    scores = head(_noisy(batch, unsure, draws))
    losses = pseudo_label_losses(scores, anomalous, mutual_pairs(adapted))
    optimizer.zero_grad()
    (losses.anomalous + losses.normal + settings.smoothness * losses.smoothness).backward()
    optimizer.step()
    return losses


def _noisy(batch: Tensor, where: Tensor, draws: FunADDraws) -> Tensor:
    """Return features ``[B, P, D]`` with noise on some patches, ``[B, P]`` bool."""
    noisy = batch.clone()
    noise = draws.noise(int(where.sum()), batch.shape[2]).to(batch)
    noisy[where] += noise * noise_deviation(batch)
    return noisy


def _batches(count: int, size: int, epochs: int, draws: FunADDraws) -> Iterator[Tensor]:
    """Yield the images of each step; an incomplete batch is left out."""
    for _ in range(epochs):
        yield from draws.order(count)[: count // size * size].split(size)


@torch.no_grad()
def _adapted(head: FunADHead, values: Tensor, images: Tensor) -> Tensor:
    """Return adapted features ``[len(images) * P, D]`` of some images."""
    rows = values.new_empty(len(images), *values.shape[1:])
    for places in torch.arange(len(images)).split(_PIECE):
        rows[places.to(values.device)] = head.adapt(values[images[places].to(values.device)])
    return rows.flatten(0, 1)


@torch.no_grad()
def _patch_scores(head: FunADHead, values: Tensor) -> Tensor:
    """Return ``[N, P]`` scores of features ``[N, P, D]``."""
    return torch.cat([head(piece) for piece in values.split(_PIECE)])


def _scores(head: FunADHead, batches: Iterable[Tensor]) -> Scores:
    """Return the scores of images from batches of features ``[b, P, D]``."""
    maps = torch.cat([_patch_scores(head, values).cpu() for values in batches])
    return Scores(maps, maps.amax(1))


@functools.cache
def _tell_of_the_patent() -> None:
    """Say once per process what matters to users in business."""
    if launched_rank() == 0:
        print_error(
            "FUN-AD's authors state a patent application and restrict commercial use of their "
            "code; this is an independent implementation, but ask them before commercial use"
        )
