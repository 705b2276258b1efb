"""How soon reviews of finished runs find the contamination, and whether one may stop when told so.

    python -m tests.benchmarks.reviewing RUN... --seeds 20

Reviewers who do not err, on runs with known contamination: images until 90 % and all of it are
found in random order, in the ranking's, and in that of `meds_plugin.review --update` after every 15
decisions; when that says that one may stop, whether it is right, and whether its intervals hold the
truth after every update of the review.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.review.rounds import Round, plan
from meds_plugin.review.update import least_probability, review_state
from meds_plugin.runs.read import read_embeddings, read_rows
from meds_plugin.utils.progress import track
from meds_plugin.utils.rng import numpy_rng
from tests.benchmarks.common import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from meds_plugin.review.ranked_run import RankedRun

    Vectors = dict[str, NDArray[np.float32]] | None

SHARES = (0.02, 0.05)  # good enough; 0 only looks for more
FOUND = (0.9, 1.0)
COLUMNS = (
    *("run", "images", "contaminated", "order", "until 90 %", "until all"),
    *("stop at", "right", "found at stop", "covered"),
)


class Stop(NamedTuple):
    """Where a review was told that one may stop.

    Attributes:
        images: Number of images reviewed until then.
        right: Whether what was told was true.
        found: Share of the contamination found until then; 1 where there is none.
        covered: Whether the intervals held the truth from the first update to the last.
    """

    images: int
    right: bool
    found: float
    covered: bool


def main() -> None:
    """Review, print the tables, write figures where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="reviews of each run (20)")
    parser.add_argument("--batch", type=int, default=15, help="decisions between updates (15)")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    rows = [row for run in given.runs for row in judge(run, given.seeds, given.batch)]
    show("images reviewed", COLUMNS, [[row.get(name) for name in COLUMNS] for row in rows])
    if given.output is not None:
        given.output.write_text(json.dumps(rows, indent=2) + "\n")


def judge(run: Path, seeds: int, batch: int) -> list[dict[str, Any]]:
    """Return a row for every way to review a run: means over the seeds."""
    ranked = read_ranked_run(run)
    truth = {row["path"]: row["injected"] == "1" for row in read_rows(run / "ranking.csv")}
    vectors = read_embeddings(run, len(truth))
    orders: dict[str, list[list[str]]] = {"ranking": [[*truth]], "random": []}
    stops: dict[str, list[Stop]] = {}
    for seed in track(range(seeds), description=run.name, total=seeds, enabled=True):
        rng = numpy_rng(seed, "reviewing")
        orders["random"].append(rng.permutation([*truth]).tolist())
        for share in (0.0, *SHARES):
            rng = numpy_rng(seed, "reviewing", str(share))
            name = f"updated, to {share:.0%}" if share else "updated"
            order, stop = review(ranked, vectors, truth, batch=batch, at_most=share, rng=rng)
            orders.setdefault(name, []).append(order)
            stops.setdefault(name, []).append(stop)
    rows = []
    for name, found in orders.items():
        row: dict[str, Any] = {"run": run.name, "images": len(truth), "order": name}
        row["contaminated"] = sum(truth.values())
        for share, column in zip(FOUND, ("until 90 %", "until all"), strict=True):
            row[column] = float(np.mean([images_until(order, truth, share) for order in found]))
        if own := stops.get(name):
            row["covered"] = float(np.mean([stop.covered for stop in own]))
            if name != "updated":
                row["stop at"] = float(np.mean([stop.images for stop in own]))
                row["right"] = float(np.mean([stop.right for stop in own]))
                row["found at stop"] = float(np.mean([stop.found for stop in own]))
        rows.append(row)
    return rows


def review(
    ranked: RankedRun,
    vectors: Vectors,
    truth: dict[str, bool],
    *,
    batch: int,
    at_most: float,
    rng: np.random.Generator,
) -> tuple[list[str], Stop]:
    """Review a run to its end.

    Returns:
        The order in which the images were reviewed, and where one could have stopped.
    """
    rounds: list[Round] = []
    decided: dict[str, bool] = {}
    stop: Stop | None = None
    covered = True
    while True:
        names, probability, left = review_state(ranked, vectors, rounds, decided)
        missed = sum(truth.values()) - sum(decided.values())
        covered &= left.low <= missed <= left.high
        if stop is None and left.share <= at_most:
            found = sum(decided.values()) / max(1, sum(truth.values()))
            right = missed <= at_most * left.staying
            stop = Stop(len(decided), right, found if any(truth.values()) else 1.0, covered=True)
        if not names:
            break
        least = least_probability(left, at_most)
        rounds.append(Round(dict(decided), plan(names, probability, least=least, rng=rng)))
        decided |= {image.path: truth[image.path] for image in rounds[-1].images[:batch]}
    assert stop is not None  # nothing is left at the end
    return [*decided], stop._replace(covered=covered)


def images_until(order: Sequence[str], truth: dict[str, bool], share: float) -> int:
    """Return how many images were reviewed until a share of the contamination was found."""
    found = np.cumsum([truth[name] for name in order])
    wanted = int(np.ceil(share * found[-1]))
    return int(np.searchsorted(found, wanted)) + 1 if wanted else 0


if __name__ == "__main__":
    main()
