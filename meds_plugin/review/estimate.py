"""How many contaminated images are left: what random images among the reviewed ones prove."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONFIDENCE", "Draw", "Left", "contaminated_left"]

CONFIDENCE = 0.95
# Bets on each draw, as parts of what the model expects, whose winnings are averaged: it rather
# expects too many. None bets on fewer images than the last number, or one surprise would cost all.
_BETS = np.array([0.5, 0.0])
_FEWEST = 0.5


class Draw(NamedTuple):
    """An image drawn at random from all that were not looked at before it.

    Attributes:
        pool: Number of images that it was drawn from, at least 1.
        found: Number of contaminated images known before it, outside the pool.
        expected: Number of contaminated images in the pool, as predicted before the draw.
        contaminated: Whether it is one.
    """

    pool: int
    found: int
    expected: float
    contaminated: bool


class Left(NamedTuple):
    """What is known of the contaminated images that nobody has looked at.

    Attributes:
        expected: Their number as the model expects it, within the interval where there is one.
        low: The least there are; 0 without random images.
        high: The most there are; all images left without random images.
        images: Number of images left.
        staying: Number of images that stay in training: all that are not dropped.
        random: Number of random images that the interval rests on; 0: it says nothing.
    """

    expected: float
    low: int
    high: int
    images: int
    staying: int
    random: int

    @property
    def share(self) -> float:
        """The largest contaminated share of the images that stay in training."""
        return self.high / max(1, self.staying)


def contaminated_left(
    draws: Sequence[Draw], *, total: int, found: int, images: int, expected: float
) -> Left:
    """Return the interval that random images give for the number of contaminated ones.

    A random image from a pool of n finds a contaminated one with probability (K - found) / n,
    where K is the number in the whole set, however the others were chosen. For the true K, the
    ratio of the predictions' likelihood to that of K is a martingale that starts at 1 and ever
    reaches 20 in at most 5 of 100 reviews (Ville's inequality). The interval holds every K whose
    ratio is below that, so it may be read, and acted on, after any decision; a poor prediction
    makes it wider but not wrong (Waudby-Smith and Ramdas, "Confidence sequences for sampling
    without replacement", 2020; Ramdas et al., "Game-theoretic statistics and safe anytime-valid
    inference", 2023). Decisions are taken to be right.

    Args:
        draws: The random images in the order in which they were drawn.
        total: Number of training images.
        found: Number of contaminated images known now.
        images: Number of images left to look at.
        expected: Contaminated images among them, as the model expects.
    """
    number = np.arange(found, found + images + 1)
    likelihood = np.zeros(len(number))
    prediction = np.zeros(len(_BETS))
    with np.errstate(divide="ignore"):
        for pool, before, guess, contaminated in draws:
            share = np.clip((number - before) / pool, 0.0, 1.0)
            fewest = min(_FEWEST, pool / 2)
            bet = np.clip(_BETS * guess, fewest, pool - fewest) / pool
            likelihood += np.log(share if contaminated else 1.0 - share)
            prediction += np.log(bet if contaminated else 1.0 - bet)
    predicted = np.logaddexp.reduce(prediction) - math.log(len(_BETS))
    held = np.flatnonzero(likelihood > predicted + math.log(1.0 - CONFIDENCE))
    # None is left in at most 5 of 100 reviews; the likeliest number stands for them.
    low, high = (held[0], held[-1]) if len(held) else [int(likelihood.argmax())] * 2
    return Left(
        expected=min(max(expected, float(low)), float(high)),
        low=int(low),
        high=int(high),
        images=images,
        staying=total - found,
        random=len(draws),
    )
