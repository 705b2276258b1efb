"""Orders a run's images anew after some decisions, and says what is left to find."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.review.build import rebuild_review
from meds_plugin.review.decision_file import read_decisions
from meds_plugin.review.estimate import CONFIDENCE, contaminated_left
from meds_plugin.review.learning import contamination_probability
from meds_plugin.review.page import PAGE
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.rounds import (
    Round,
    plan,
    random_draws,
    read_rounds,
    round_file,
    round_text,
)
from meds_plugin.runs.read import read_embeddings
from meds_plugin.utils.atomic import write_text
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from meds_plugin.review.estimate import Left
    from meds_plugin.review.ranked_run import RankedRun
    from meds_plugin.review.rounds import Planned

__all__ = ["ReviewState", "Updated", "least_probability", "report", "review_state", "update_review"]


class ReviewState(NamedTuple):
    """What is known of the undecided images.

    Attributes:
        names: The images, in the order of the run's ranking.
        probability: ``[N]`` that each is contaminated.
        left: How many are.
    """

    names: list[str]
    probability: NDArray[np.float64]
    left: Left


class Updated(NamedTuple):
    """The result of an update.

    Attributes:
        file: The new order, with all decisions so far.
        page: The page in that order.
        kept: Number of images kept so far.
        dropped: Number of images dropped so far.
        left: What is known of the others.
    """

    file: Path
    page: Path
    kept: int
    dropped: int
    left: Left


def update_review(run: Path, decisions: Path, *, at_most: float) -> Updated:
    """Learn from the decisions so far, and order the undecided images anew.

    Decisions of earlier updates stay; where a file decides otherwise, it is right. The same
    decisions again give the same order.

    Args:
        run: The run that is reviewed. The order goes into its folder, as ``review_order.csv``, or
            ``review_order2.csv``, ... after further decisions, and its page is built again.
        decisions: The reviewer's file; see `read_exclude` for the words it may contain.
        at_most: The contaminated share of the images that stay which is good enough.

    Raises:
        UserError: If the folder holds no run, or a file is damaged or does not fit the run.
    """
    ranked = read_ranked_run(run)
    names = [image.path for image in ranked.images]
    rounds = read_rounds(run, names)
    decided = rounds[-1].decided.copy() if rounds else {}
    found = read_decisions(decisions, ranked.images, key="--update")
    decided |= {name: decision.drop for name, decision in found.items()}
    state = review_state(ranked, read_embeddings(run, len(names)), rounds, decided)
    least = least_probability(state.left, at_most)
    categories = {image.path: image.category for image in ranked.images}
    # The last round is given again where nothing has changed since.
    for number in (max(0, len(rounds) - 1), len(rounds)):
        rng = numpy_rng(0, "review", number, *names)
        images = plan(state.names, state.probability, least=least, rng=rng)
        file, text = round_file(run, number), round_text(Round(decided, images), categories)
        if not file.exists() or file.read_bytes() == text.encode():
            break
    write_text(file, text)
    dropped = sum(decided.values())
    updated = Updated(file, run / PAGE, len(decided) - dropped, dropped, state.left)
    places = {image.path: place for place, image in enumerate(images)}
    last = len(places)  # for what is decided
    rebuild_review(
        run,
        _updated(ranked, decided, images, state.left),
        suspicion=[float(-places.get(name, last)) for name in names],
        headline=". ".join(report(updated, at_most)[1:]),
    )
    return updated


def review_state(
    ranked: RankedRun,
    embeddings: Mapping[str, NDArray[np.float32]] | None,
    rounds: Sequence[Round],
    decided: Mapping[str, bool],
) -> ReviewState:
    """Return what is known of the undecided images.

    Args:
        ranked: The training images.
        embeddings: See `read_embeddings`.
        rounds: The orders that were given so far.
        decided: The decided images, and whether each is dropped.
    """
    place = {name: index for index, name in enumerate(ranked.manifest)}
    order = [place[image.path] for image in ranked.images]
    rank = {image.path: index for index, image in enumerate(ranked.images)}
    probability = contamination_probability(
        [image.score for image in ranked.images],
        [image.category for image in ranked.images],
        [rank[name] for name in decided],
        [*decided.values()],
        embeddings and {name: part[order] for name, part in embeddings.items()},
    )
    names = [name for name in rank if name not in decided]
    chances = probability[[rank[name] for name in names]]
    left = contaminated_left(
        random_draws(rounds, decided),
        total=len(rank),
        found=sum(decided.values()),
        images=len(names),
        expected=float(chances.sum()),
    )
    return ReviewState(names, chances, left)


def report(updated: Updated, at_most: float) -> list[str]:
    """Say in lines what is left and whether one may stop."""
    file, _, kept, dropped, left = updated
    lines = [f"{file}: {left.images} images left, in a new order; {dropped} dropped, {kept} kept"]
    if not left.images:
        return lines
    about = f"contaminated images among those left: about {left.expected:.0f}"
    done = left.share <= at_most
    if not left.random and not done:
        why = "no guarantee, as none of the decided images was drawn at random"
        return [*lines, f"{about}, by the model alone: {why}; some of the new order are"]
    if left.random:
        about += f", between {left.low} and {left.high}"
        about += f" ({CONFIDENCE:.0%} confidence, from {left.random} images drawn at random)"
    proved = f"at most {left.share:.1%} of the {left.staying} images that stay are contaminated"
    if dropped:
        share = dropped / (dropped + left.high)
        proved += f", and at least {share:.0%} of the contaminated ones are found"
    return [*lines, about, f"{'you may stop' if done else f'continue to {at_most:.1%}'}: {proved}"]


def least_probability(left: Left, at_most: float) -> float:
    """Return the probability below which images are drawn at random instead of by rank.

    Ranked images are worth more as long as they are likelier than that to be contaminated; after
    that, random ones prove soonest that few are left. Where this is proved, ranks decide again.

    Args:
        left: What is known of the images left.
        at_most: The contaminated share of the images that stay which is good enough.
    """
    return 0.0 if left.share <= at_most else 2 * at_most


def _updated(
    ranked: RankedRun, decided: dict[str, bool], planned: list[Planned], left: Left
) -> RankedRun:
    """Return the run with what is known of its contamination now."""
    chances = {name: chance for name, chance, _ in planned}
    chances |= {name: float(drop) for name, drop in decided.items()}
    images = [replace(image, probability=chances[image.path]) for image in ranked.images]
    contamination = ranked.contamination
    if left.random:
        found, total = sum(decided.values()), len(images)
        shares = {
            name: (found + value) / total
            for name, value in (("estimate", left.expected), ("low", left.low), ("high", left.high))
        }
        contamination = {"all": {**shares, "level": CONFIDENCE, "images": total, "reason": None}}
    return replace(ranked, images=images, contamination=contamination)
