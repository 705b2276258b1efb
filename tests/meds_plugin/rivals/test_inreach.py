"""InReaCh: parity with the authors' code, its rules one by one, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meds_plugin.rivals.base import Scores, TensorFeatures
from meds_plugin.rivals.inreach import (
    Channels,
    ColumnOrder,
    InReach,
    associations,
    asymmetry,
    channels,
    mutual_neighbours,
    positions,
    reliable,
)
from meds_plugin.rivals.local_features import combined, neighbourhoods
from meds_plugin.rivals.maps import resized_maps
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]

CASES = ["pos", "nopos", "shift", "tight"]
ORDERS: list[ColumnOrder] = ["released", "intended"]
PREFIX = {"released": "", "intended": "fixed_"}


class Case:
    """Outputs of the authors' code for one set of features."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.stored = stored
        seeds, length, self.max_std, dims, _, self.weight, self.sigma = stored["cfg"].tolist()
        self.seeds, self.length, self.dims = int(seeds), int(length), int(dims)
        self.patches = self["patches"].mT.contiguous()
        self.count = len(self.patches)
        self.images = self["images"].permute(0, 3, 1, 2).double() / 255
        self.size = (self.images.shape[2], self.images.shape[3])
        self.grid = (self["train_layer0"].shape[2], self["train_layer0"].shape[3])

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.stored[key]))

    def features(self, part: str) -> Tensor:
        maps = [
            neighbourhoods(self[f"{part}_layer{layer}"], patch=3, width=self.dims)
            for layer in range(3)
        ]
        return combined(maps, self.dims).flatten(2).mT

    def found(self, order: ColumnOrder) -> Channels:
        pairs = associations(self.patches, torch.arange(self.count), self.seeds)
        vectors = self.patches.flatten(0, 1)
        return reliable(vectors, channels(*pairs, order), self.length, self.max_std)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden: Golden) -> Case:
    return Case(golden(f"baselines/inreach_{request.param}"))


def listed(found: Channels) -> list[list[int]]:
    """Return the channels as lists of members, in an order of their own."""
    return sorted(found.rows[found.channel == one].tolist() for one in found.channel.unique())


# --- parity with the authors' code -----------------------------------------------------------


def test_the_symmetry_test_is_the_authors(case: Case) -> None:
    value = asymmetry(case.images.mean(0))
    assert value == pytest.approx(float(case["pos_test"]), rel=1e-3)
    assert value == float(np.float16(value))
    assert (value >= 1000) == bool(case["pos_flag"])


def test_features_and_places_are_the_authors(case: Case) -> None:
    made = case.features("train")
    if case["pos_flag"]:
        places = positions(case.grid, case.weight)
        made = torch.cat([made, places.expand(case.count, -1, -1)], dim=2)
    torch.testing.assert_close(made, case.patches, rtol=1e-5, atol=1e-5)


def test_pairs_are_associated_as_the_authors_do(case: Case) -> None:
    for (seed, other), rows in zip(case["pair_keys"].tolist(), case["pair_assoc"], strict=True):
        distances, partners = mutual_neighbours(case.patches[seed], case.patches[other])
        expected = torch.where(rows[:, 1].isfinite(), rows[:, 1], -1).long()
        assert torch.equal(partners, expected)
        torch.testing.assert_close(distances, rows[:, 2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_the_members_of_channels_are_the_authors(case: Case, order: ColumnOrder) -> None:
    found = case.found(order)
    images, patches = case[f"{PREFIX[order]}kept_img_patch"].T
    rows = images * case.patches.shape[1] + patches
    lengths = case[f"{PREFIX[order]}kept_lens"].tolist()
    assert listed(found) == sorted(part.tolist() for part in rows.split(lengths))
    if order == "released":
        bank = case.patches.flatten(0, 1)[found.rows]
        assert sorted(bank.tolist()) == sorted(case["memory"].tolist())


@pytest.mark.parametrize("order", ORDERS)
def test_scores_are_the_authors(case: Case, order: ColumnOrder) -> None:
    rival = InReach(
        seeds=case.seeds,
        min_length=case.length,
        max_std=case.max_std,
        position_weight=case.weight,
        column_order=order,
        shuffle=False,
        sigma=case.sigma,
    )
    train = TensorFeatures(case.patches[..., : case.dims], case.grid, case.size, case.images)
    test = TensorFeatures(case.features("test"), case.grid, case.size)
    scores = rival.fit(train, group="made", seed=0, progress=False).score(test)
    expected = case[f"{PREFIX[order]}test_map"]
    made = rival.pixel_maps(scores.maps.unflatten(1, case.grid), case.size)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.images, expected.amax((1, 2)), rtol=1e-4, atol=1e-5)


# --- the rules -------------------------------------------------------------------------------


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_partners_are_each_others_nearest() -> None:
    distances, partners = mutual_neighbours(line(0, 10, 20), line(1, 2, 13, 24))
    assert distances.tolist() == [1, 2, 3, 4]
    assert partners.tolist() == [0, -1, 1, 2]


def test_the_nearest_seed_image_decides_even_where_it_takes_no_partner() -> None:
    # The 6 is as far from the 8 as from the 4, which has a nearer one itself.
    images = torch.stack([line(8, 30), line(4, 60), line(6, 5)])
    for seed, expected in ((0, [0, -1]), (1, [-1, 0])):
        assert mutual_neighbours(images[seed], images[2])[1].tolist() == expected
    owners, partners = associations(images, torch.arange(3), 2)
    assert (owners[2].tolist(), partners[2].tolist()) == ([0, 1], [0, 0])  # on ties the first one
    images[0, 0] = 9
    owners, partners = associations(images, torch.arange(3), 2)
    assert (owners[2].tolist(), partners[2].tolist()) == ([-1, 1], [-1, 0])


def test_seed_images_begin_channels_with_images_behind_them_only() -> None:
    order = torch.tensor([3, 1, 0, 2])
    done = []
    images = torch.randn(4, 6, 3)
    owners, partners = associations(
        images, order, 2, progress=lambda count, total: done.append((count, total))
    )
    assert (owners[3] == -1).all()
    assert set(owners[1].tolist()) <= {-1, 3}
    for image in (0, 2):
        assert set(owners[image].tolist()) <= {-1, 1, 3}
    assert torch.equal(owners < 0, partners < 0)
    assert (owners >= 0).any()
    assert done[-1] == (4, 4)


def test_released_channels_swap_the_two_patches() -> None:
    owners = torch.tensor([[-1, -1, -1], [0, -1, 0], [-1, 0, 1]])
    partners = torch.tensor([[-1, -1, -1], [2, -1, 1], [-1, 2, 0]])
    # Rows: 3 * image + patch.
    assert listed(channels(owners, partners, "intended")) == [[1, 5], [2, 3, 7], [3, 8]]
    assert listed(channels(owners, partners, "released")) == [[0, 5], [1, 8], [2, 4], [5, 6]]


def test_columns_do_not_matter_where_patches_stay_in_place() -> None:
    images = 10 * torch.randn(9, 4) + 0.1 * torch.randn(6, 9, 4)
    pairs = associations(images, torch.randperm(6), 4)
    assert listed(channels(*pairs, "intended")) == listed(channels(*pairs, "released"))


def one_channel(*values: float) -> tuple[Tensor, Channels]:
    rows = torch.arange(len(values))
    return line(*values), Channels(rows, torch.zeros_like(rows))


def test_members_far_from_the_mean_for_the_spread_are_dropped() -> None:
    # Mean 2, distances 2, 2, 1, 1, 4, of which the deviation is 1.1.
    vectors, found = one_channel(0, 0, 1, 3, 6)
    assert listed(reliable(vectors, found, 3, 3.0)) == [[0, 1, 2, 3]]
    assert listed(reliable(vectors, found, 3, 4.0)) == [[0, 1, 2, 3, 4]]
    assert listed(reliable(vectors, found, 4, 3.0)) == []  # too short then
    assert listed(reliable(vectors, found, 5, 4.0)) == []  # too short before
    assert listed(reliable(vectors, found, 1, 1.0)) == [[2, 3]]
    equal, found = one_channel(-1, 1, -1, 1)
    assert listed(reliable(equal, found, 1, 1e9)) == []


def test_channels_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(60, 3)
    rows, channel = torch.randperm(60), torch.arange(60) * 7 // 60
    together = reliable(vectors, Channels(rows, channel), 4, 2.0)
    assert 0 < len(together.rows) < 60
    for one in range(7):
        own = rows[channel == one]
        alone = reliable(vectors, Channels(own, torch.zeros_like(own)), 4, 2.0)
        assert torch.equal(together.rows[together.channel == one], alone.rows)
    monkeypatch.setattr("meds_plugin.rivals.inreach._ROWS", 8)
    assert torch.equal(reliable(vectors, Channels(rows, channel), 4, 2.0).rows, together.rows)


def test_places_run_along_rows() -> None:
    expected = [[0, 0], [1.25, 0], [2.5, 0], [3.75, 0], [0, 2.5], [1.25, 2.5], [2.5, 2.5]]
    assert positions((2, 4), 5.0)[:7].tolist() == expected


def test_a_symmetric_image_is_like_its_mirror_image() -> None:
    image = torch.rand(3, 16, 16, dtype=torch.float64)
    assert asymmetry((image + image.mT) / 2) == 0
    assert asymmetry(image) > 1000


# --- a category ------------------------------------------------------------------------------

GRID, SIZE = (3, 4), (12, 16)


def made(count: int, *, seed: int = 0, odd: tuple[int, int] | None = None) -> Tensor:
    """Return features of images that differ by noise; one patch may be odd."""
    generator = torch.Generator().manual_seed(3)
    kind = 5 * torch.randn(12, 5, generator=generator)
    generator.manual_seed(seed)
    features = kind + 0.3 * torch.randn(count, 12, 5, generator=generator)
    if odd is not None:
        features[odd] += 4
    return features


def settings(**changed: Any) -> InReach:
    return InReach(**{"position": False, "sigma": 1.0, **changed})


def fitted(
    rival: InReach, features: Tensor, *, seed: int = 0, group: str = "made", **kept: Any
) -> Any:
    train = TensorFeatures(features, GRID, **{"image_size": SIZE, **kept})
    return rival.fit(train, group=group, seed=seed, progress=False)


def test_odd_patches_score_highest() -> None:
    fit = fitted(settings(), made(12, odd=(7, 5)))
    assert fit.training.maps.argmax() == 7 * 12 + 5
    assert fit.training.images.argmax() == 7
    test = TensorFeatures(made(4, seed=1, odd=(2, 8)), GRID, SIZE)
    scores: Scores = fit.score(test)
    assert scores.maps.argmax() == 2 * 12 + 8
    assert scores.images.argmax() == 2
    for values in (*fit.training, *scores):
        assert values.dtype == torch.float32
        assert (values >= 0).all()
    one = fit.score(TensorFeatures(test.values[2:3], GRID, SIZE))
    torch.testing.assert_close(one.maps, scores.maps[2:3])
    torch.testing.assert_close(one.images, scores.images[2:3])


def test_training_images_are_not_compared_with_themselves() -> None:
    features = made(9)
    rival = settings(shuffle=False, seeds=3)
    fit = fitted(rival, features)
    pairs = associations(features, torch.arange(9), 3)
    rows = reliable(features.flatten(0, 1), channels(*pairs, "intended"), 3, 5.0).rows
    assert len(fit.bank) == len(set(rows.tolist())) < len(rows)  # each member once
    for image in range(9):
        bank = features.flatten(0, 1)[rows[rows // 12 != image]]
        table = (features[image][:, None] - bank).square().sum(2)
        torch.testing.assert_close(fit.training.maps[image], table.amin(1))
    maps = resized_maps(fit.training.maps.view(9, 3, 4), SIZE, resampling="nearest", sigma=1.0)
    torch.testing.assert_close(fit.training.images, maps.amax((1, 2)))
    own = fit.score(TensorFeatures(features, GRID, SIZE))
    assert (own.maps == 0).any()  # as other images, they find their own members
    assert (fit.training.maps > 0).all()


def test_seed_images_are_drawn_by_seed_and_category() -> None:
    features = made(30)
    before = torch.random.get_rng_state()
    maps = [fitted(settings(seeds=2), features, seed=seed).training.maps for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    other = fitted(settings(seeds=2), features, group="other").training.maps
    assert not torch.equal(maps[0], other)
    unshuffled = [
        fitted(settings(seeds=2, shuffle=False), features, seed=seed).training.maps
        for seed in (0, 1)
    ]
    assert torch.equal(*unshuffled)


def test_more_seeds_than_images_are_all_of_them() -> None:
    features = made(6)
    all_of_them, more = (fitted(settings(seeds=seeds), features) for seeds in (6, 50))
    assert torch.equal(all_of_them.training.maps, more.training.maps)


def test_places_count_where_wanted_or_where_the_mean_image_is_not_symmetric() -> None:
    symmetric = torch.full((8, 3, 16, 16), 0.5)
    slope = torch.linspace(0, 1, 16).expand(8, 3, 16, 16)
    own: dict[str, Any] = {"position": "auto", "position_weight": 50.0}

    def maps(images: Tensor | None, **changed: Any) -> Tensor:
        fit = fitted(settings(**changed), made(8), image_size=(16, 16), images=images)
        scores: Scores = fit.score(TensorFeatures(made(2, seed=1).flip(1), GRID, (16, 16)))
        return scores.maps

    with_places, without = (maps(None, **{**own, "position": on}) for on in (True, False))
    assert not torch.allclose(with_places, without)
    assert torch.equal(maps(symmetric, **own), without)
    assert torch.equal(maps(slope, **own), with_places)


def test_its_features_are_those_of_neighbourhoods() -> None:
    module = cast("Any", InReach(patch=5, width=96).features(cast("Any", nn.Identity())))
    assert (module.patch, module.width) == (5, 96)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "min_length", "needed"), [(1, 3, 4), (3, 3, 4), (2, 1, 3), (5, 5, 6)]
)
def test_too_few_images_are_refused(count: int, min_length: int, needed: int) -> None:
    with pytest.raises(UserError, match=f"^made: .* at least {needed} .*got {count}$"):
        fitted(settings(min_length=min_length), made(count))


def test_the_fewest_images_do() -> None:
    assert torch.isfinite(fitted(settings(min_length=2), made(3)).training.images).all()


@pytest.mark.parametrize("max_std", [5.0, 0.01])
def test_an_empty_bank_is_refused(max_std: float) -> None:
    features = made(8) if max_std < 1 else made(1).repeat(8, 1, 1)
    with pytest.raises(UserError, match=r"^made: .*inreach\.min_length=3.*inreach\.max_std="):
        fitted(settings(max_std=max_std), features)


def test_images_that_are_not_square_have_no_diagonal() -> None:
    with pytest.raises(UserError, match=r"inreach\.position=auto .*12 x 16"):
        fitted(settings(position="auto"), made(8), images=torch.rand(8, 3, *SIZE))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seeds", (0, -1, 2.0, "x", True, None)),
        ("min_length", (0, 1.5, "x", False)),
        ("max_std", (0, 0.0, -1.0, float("inf"), float("nan"), "x", True)),
        ("position", ("yes", 1, None)),
        ("position_weight", (-1, "x", float("nan"))),
        ("column_order", ("right", 1, None)),
        ("shuffle", ("no", 1, None)),
        ("sigma", (-1.0, "x", float("inf"))),
        ("patch", (0, 2, "x")),
        ("width", (0, 1.5, None)),
    ],
)
def test_bad_values_name_the_key(key: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(UserError, match=rf"^inreach\.{key} must be .*, got ") as error:
            InReach(**{key: value})
        assert "\n" not in str(error.value)
        assert repr(value) in str(error.value)
