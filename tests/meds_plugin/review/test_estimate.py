from __future__ import annotations

import numpy as np
import pytest

from meds_plugin.review.estimate import Draw, contaminated_left
from meds_plugin.review.rounds import Round, plan, random_draws


def test_without_random_images_anything_is_possible() -> None:
    left = contaminated_left([], total=50, found=10, images=20, expected=3.5)
    assert (left.expected, left.low, left.high, left.random) == (3.5, 0, 20, 0)
    assert left.share == 20 / 40


def test_clean_random_images_prove_what_the_hypergeometric_distribution_says() -> None:
    # With h of 100 images contaminated, 40 clean ones in a row have a chance of
    # C(100 - h, 40) / C(100, 40): below 1 in 20 from h = 6 on. What the model expects costs little.
    draws = [Draw(100 - place, 7, 0.0, contaminated=False) for place in range(40)]
    left = contaminated_left(draws, total=150, found=7, images=60, expected=0.2)
    assert (left.low, left.high) == (0, 6)
    assert left.expected == pytest.approx(0.2)
    assert left.share == 6 / 143


def test_contaminated_random_images_raise_both_ends() -> None:
    draws = [Draw(200 - place, 5 + place, 60.0, contaminated=True) for place in range(8)]
    left = contaminated_left(draws, total=250, found=13, images=192, expected=1.0)
    assert 10 < left.low < left.high == 192
    assert left.expected == left.low


def test_nothing_is_left_at_the_end() -> None:
    draws = [Draw(2, 0, 1.0, contaminated=True), Draw(1, 1, 0.5, contaminated=False)]
    left = contaminated_left(draws, total=2, found=1, images=0, expected=0.0)
    assert (left.low, left.high, left.share) == (0, 0, 0.0)
    assert contaminated_left([], total=0, found=0, images=0, expected=0.0).share == 0.0


@pytest.mark.parametrize("model", ["knows", "guesses", "is wrong", "is sure of none"])
def test_the_interval_holds_the_truth_at_every_time_of_a_review(model: str) -> None:
    rng = np.random.default_rng(0)
    missed, reviews = 0, 150
    for _ in range(reviews):
        truth = {str(image): bool(rng.random() < 0.15) for image in range(90)}
        rounds: list[Round] = []
        decided: dict[str, bool] = {}
        held = True
        while len(decided) < len(truth):
            names = [name for name in truth if name not in decided]
            dirty = np.array([truth[name] for name in names])
            noise = rng.random(len(names))
            chance = {
                "knows": np.where(dirty, 0.5, 0.1) * noise,
                "guesses": noise,
                "is wrong": np.where(dirty, 0.02, 0.9) * noise,
                "is sure of none": 0.0 * noise,
            }[model]
            # It also learns from what it saw, and looks less closely once it has found something.
            least = 0.0 if sum(decided.values()) % 2 else 0.3
            rounds.append(Round(dict(decided), plan(names, chance, least=least, rng=rng)))
            decided |= {image.path: truth[image.path] for image in rounds[-1].images[:9]}
            left = contaminated_left(
                random_draws(rounds, decided),
                total=len(truth),
                found=sum(decided.values()),
                images=len(truth) - len(decided),
                expected=0.0,
            )
            held &= left.low <= sum(truth.values()) - sum(decided.values()) <= left.high
        missed += not held
    assert missed <= 0.05 * reviews
