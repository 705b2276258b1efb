"""The orders in which images are reviewed: the suspicious ones, and random ones among them.

Each update of a run writes one, ``review_order.csv``, ``review_order2.csv``, ...: a round. They say
which of the images reviewed were drawn at random, and from which others.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meds_plugin.review.estimate import Draw
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.atomic import csv_text
from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Planned", "Round", "plan", "random_draws", "read_rounds", "round_file", "round_text"]

EVERY = 10  # one of so many images is a random one
_COLUMNS = ("path", "category", "decision", "probability", "random")


class Planned(NamedTuple):
    """An image to review.

    Attributes:
        path: Its name.
        probability: Of its contamination, as predicted when the order was made.
        random: Whether it was drawn at random from those that come no earlier.
    """

    path: str
    probability: float
    random: bool


class Round(NamedTuple):
    """An order of review.

    Attributes:
        decided: The images that were decided before, and whether each was dropped.
        images: All others, in the order in which to review them.
    """

    decided: dict[str, bool]
    images: list[Planned]


def plan(
    names: Sequence[str],
    probability: NDArray[np.float64],
    *,
    least: float,
    rng: np.random.Generator,
) -> list[Planned]:
    """Order images for review.

    The most probable ones come first, and every tenth is drawn at random from the rest; from where
    none reaches a probability of ``least`` on, all are.

    Args:
        names: ``[N]`` the images.
        probability: ``[N]`` of contamination.
        least: 0: by probability to the end.
        rng: Draws the random ones.
    """
    ranked = np.argsort(-probability, kind="stable").tolist()[::-1]
    drawn = rng.permutation(len(names)).tolist()
    taken: set[int] = set()
    images = []
    for place in range(1, len(names) + 1):
        top = _next(ranked, taken)
        random = place % EVERY == 0 or bool(probability[top] < least)
        chosen = _next(drawn, taken) if random else top
        taken.add(chosen)
        images.append(Planned(names[chosen], float(probability[chosen]), random))
    return images


def random_draws(rounds: Sequence[Round], decisions: Mapping[str, bool]) -> list[Draw]:
    """Return the random images among the reviewed ones, in the order in which they were drawn.

    Those of a round count up to the first image that was left out when the next round began: who
    passes over an image may do so for what it shows.

    Args:
        rounds: All rounds.
        decisions: All decisions now; those on images that no round planned count, too, but not as
            random ones.
    """
    draws = []
    ends = [*(each.decided for each in rounds[1:]), decisions]
    for each, known in zip(rounds, ends, strict=False):
        found = sum(decisions[name] for name in each.decided)
        expected = sum(image.probability for image in each.images)
        for place, image in enumerate(each.images):
            if image.path not in known:
                break
            dropped = decisions[image.path]
            if image.random:
                draws.append(Draw(len(each.images) - place, found, expected, dropped))
            found += dropped
            expected -= image.probability
    return draws


def round_file(run: Path, number: int) -> Path:
    """Return the file of a round; the first is number 0."""
    return run / f"review_order{number + 1 if number else ''}.csv"


def round_text(each: Round, categories: Mapping[str, str]) -> str:
    """Return a round as CSV: the images to review, in order, then the decided ones.

    Args:
        each: The round.
        categories: The category of every image.
    """
    rows = [
        {"path": name, "probability": f"{chance:.5f}", "random": int(random)}
        for name, chance, random in each.images
    ]
    rows += [
        {"path": name, "decision": "drop" if dropped else "keep"}
        for name, dropped in each.decided.items()
    ]
    return csv_text(_COLUMNS, (row | {"category": categories[str(row["path"])]} for row in rows))


def read_rounds(run: Path, names: Collection[str]) -> list[Round]:
    """Read the rounds of a run; none if it has not been updated.

    Args:
        run: Its folder.
        names: Its training images.

    Raises:
        UserError: If a file is damaged or belongs to other images.
    """
    rounds = []
    for file in itertools.takewhile(Path.is_file, (round_file(run, n) for n in itertools.count())):
        advice = f"remove it and all {run / 'review_order*.csv'} to start the review over"
        try:
            rows = read_rows(file)
            images = [
                Planned(row["path"], float(row["probability"]), row["random"] == "1")
                for row in rows
                if not row["decision"]
            ]
            decided = {row["path"]: row["decision"] == "drop" for row in rows if row["decision"]}
        except (KeyError, ValueError, TypeError) as error:
            msg = f"{file} is damaged ({brief(error)}): {advice}"
            raise UserError(msg) from error
        if sorted(row["path"] for row in rows) != sorted(names):
            msg = f"{file} and manifest.csv list different images: {advice}"
            raise UserError(msg)
        rounds.append(Round(decided, images))
    return rounds


def _next(queue: list[int], taken: Collection[int]) -> int:
    """Return the last number of a queue that is not taken; shortens the queue to it."""
    while queue[-1] in taken:
        queue.pop()
    return queue[-1]
