from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from meds_plugin.review.learning import contamination_probability

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
COUNT = 60
SCORES = np.sort(RNG.gamma(2.0, size=COUNT))[::-1]
ONE = ["nut"] * COUNT


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def alike(groups: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Return vectors that are near within each group, and noise as the other kind."""
    centres = RNG.normal(size=(groups.max() + 1, 8))
    near = unit(centres[groups] + 0.1 * RNG.normal(size=(COUNT, 8)))
    return {"image": near, "peak": unit(RNG.normal(size=(COUNT, 8)))}


def test_without_decisions_the_order_is_that_of_the_scores() -> None:
    for vectors in (None, alike(np.arange(COUNT) % 4)):
        chance = contamination_probability(SCORES, ONE, [], [], vectors)
        assert chance.shape == (COUNT,)
        assert (np.diff(chance) < 0).all()
        assert 0 < chance[-1] < 0.1 < chance[0] < 1


def test_decisions_carry_over_to_images_that_look_alike() -> None:
    groups = np.arange(COUNT) % 4
    decided = np.arange(20)
    chance = contamination_probability(SCORES, ONE, decided, groups[decided] == 1, alike(groups))
    rest = np.arange(20, COUNT)
    worst = rest[np.argsort(-chance[rest])[: (groups[rest] == 1).sum()]]
    assert (groups[worst] == 1).mean() > 0.8
    # Another category is another product, however alike.
    names = ["nut" if place < 20 else "bolt" for place in range(COUNT)]
    apart = contamination_probability(SCORES, names, decided, groups[decided] == 1, alike(groups))
    assert (np.diff(apart[20:]) < 0).all()


@pytest.mark.parametrize("dropped", [True, False])
def test_decisions_that_are_all_the_same_move_all_images_their_way(dropped: bool) -> None:
    before = contamination_probability(SCORES, ONE, [], [])
    after = contamination_probability(SCORES, ONE, np.arange(15), np.full(15, dropped))
    assert ((after > before) == dropped)[15:].all()
    assert np.isfinite(after).all()


def test_contradicting_decisions_on_the_same_picture_give_even_odds() -> None:
    same = {name: np.full((COUNT, 4), 0.5, np.float32) for name in ("peak", "image")}
    decided = np.arange(40)
    chance = contamination_probability(np.ones(COUNT), ONE, decided, decided % 2 == 0, same)
    assert chance == pytest.approx(np.full(COUNT, 0.5), abs=0.1)


def test_a_surprise_does_not_upset_the_fit() -> None:
    score = np.concatenate([[1e6], SCORES])
    decided = np.arange(COUNT)
    dropped = decided == COUNT - 1  # the least suspicious one of them, and none of the others
    chance = contamination_probability(score, [*ONE, "nut"], decided, dropped)
    assert np.isfinite(chance).all()
    assert chance[-1] < 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_are_no_special_case(count: int) -> None:
    vectors = {name: np.ones((count, 4), np.float32) for name in ("peak", "image")}
    chance = contamination_probability(np.ones(count), ["nut"] * count, [], [], vectors)
    assert chance.shape == (count,)
    if count:
        assert contamination_probability([1.0], ["nut"], [0], [True], vectors)[0] > chance[0]
