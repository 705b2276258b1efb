"""FUN-AD: parity with the authors' steps and scores, its pseudo labels, training and settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from meds_plugin.encoders.build import build_encoder
from meds_plugin.metrics import auroc
from meds_plugin.rivals import fun_ad
from meds_plugin.rivals.base import Scores, TensorFeatures
from meds_plugin.rivals.fun_ad import (
    FunAD,
    FunADDraws,
    FunADFit,
    FunADHead,
    GlobalAndLocal,
    train_head,
    training_step,
)
from meds_plugin.rivals.fun_ad_labels import (
    bank_distances,
    mutual_pairs,
    noise_deviation,
    normal_images,
    pseudo_label_losses,
)
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]

SMALL: dict[str, Any] = {"epochs": 30, "batch_size": 4, "lr": 1e-3, "hidden": (16, 8)}


class Recorded(FunADDraws):
    """The draws of the authors' run, and what its steps are to give."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        kinds = {key: torch.from_numpy(value) for key, value in arrays.items() if value.ndim}
        self.arrays = kinds
        self.train, self.test = kinds["train"], kinds["test"]
        _, width, *hidden, batch, self.side, _ = kinds["cfg"].tolist()
        self.settings = FunAD(
            epochs=2,
            batch_size=batch,
            lr=float(arrays["lr"]),
            hidden=hidden,
            smoothness=float(arrays["loss_weight"]),
        )
        self.head = FunADHead(width, hidden)
        self.head.load_state_dict(self.of("init."))
        self.losses = {
            step: [float(arrays[f"it{step}.{key}"]) for key in ("bce_a", "bce_n", "oto")]
            for step in range(int(arrays["n_iter"]))
        }
        self.step = 0
        self.scored: list[Tensor] = []

    def of(self, prefix: str) -> dict[str, Tensor]:
        starts = ((key, value) for key, value in self.arrays.items() if key.startswith(prefix))
        return {key.removeprefix(prefix): value for key, value in starts}

    def now(self, name: str) -> Tensor:
        return self.arrays[f"it{self.step}.{name}"]

    def order(self, count: int) -> Tensor:
        batches = [self.arrays[f"it{self.step + i}.x_before"] for i in range(2)]
        same = (torch.cat(batches)[:, None] == self.train).all(3).all(2)
        places = same.long().argmax(1)
        left = torch.ones(count, dtype=torch.bool)
        left[places] = False
        return torch.cat([places, left.nonzero()[:, 0]])

    def bank(self, images: Tensor, count: int) -> Tensor:
        drawn = self.now("bank_images")
        assert len(drawn) == count
        assert set(drawn.tolist()) <= set(images.tolist())
        return drawn

    def noise(self, count: int, width: int) -> Tensor:
        """Return the numbers whose multiples were added, and go on to the next step."""
        band, before = self.now("band"), self.now("x_before")
        assert (count, width) == (int(band.sum()), before.shape[2])
        added = (self.now("x_after") - before).flatten(0, 1)[band]
        self.step += 1
        return added / noise_deviation(before)


@pytest.fixture(params=["lr2e-5", "lr1e-3"])
def recorded(golden: Golden, request: pytest.FixtureRequest) -> Recorded:
    return Recorded(golden(f"baselines/funad_{request.param}"))


def close(given: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(given, expected, rtol=0.0, atol=tolerance)


def check_weights(head: FunADHead, expected: dict[str, Tensor], tolerance: float) -> None:
    state = head.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        close(state[key], value, tolerance)


# --- parity with the authors' code -----------------------------------------------------------


def test_every_step_is_the_authors(recorded: Recorded) -> None:
    head, settings, now = recorded.head, recorded.settings, recorded.now
    optimizer = torch.optim.RMSprop(head.parameters(), settings.lr, momentum=settings.momentum)
    for step, losses in recorded.losses.items():
        batch = now("x_before").clone()
        with torch.no_grad():
            images = head(recorded.train).amax(1)
            bank = head.adapt(recorded.train[now("bank_images")]).flatten(0, 1)
            adapted = head.adapt(batch).flatten(0, 1)
            scores = head(now("x_after"))
        low, high = images.min(), images.max()
        close((images - low) / (high - low), now("img_score_norm"), 5e-4)
        close(bank_distances(adapted, bank).view(batch.shape[:2]), now("dist_norm"), 1e-4)
        assert torch.equal(mutual_pairs(adapted), now("matched"))
        close(scores, now("pred"), 1e-5)
        own = pseudo_label_losses(scores, now("label") > 0, now("matched"))
        close(torch.stack(own), torch.tensor(losses), 2e-5)
        own = training_step(head, optimizer, batch, bank, settings, recorded)
        close(torch.stack(own).detach(), torch.tensor(losses), 2e-5)
        assert recorded.step == step + 1
        assert torch.equal(batch, recorded.arrays[f"it{step}.x_before"])
        if weights := recorded.of(f"it{step}.after."):
            check_weights(head, weights, 1e-5 if step == 0 else 2e-4)


@pytest.mark.parametrize("epochs", [1, 2])
def test_whole_epochs_and_their_scores_are_the_authors(recorded: Recorded, epochs: int) -> None:
    settings = replace(recorded.settings, epochs=epochs)
    train_head(recorded.head, recorded.train, settings, recorded)
    assert recorded.step == 2 * epochs
    if epochs == 2:
        check_weights(recorded.head, recorded.of("it3.after."), 2e-4)
    fit = FunADFit(recorded.head, Scores(torch.empty(0), torch.empty(0)))
    side = round(recorded.test.shape[1] ** 0.5)
    scores = fit.score(TensorFeatures(recorded.test, (side, side)))
    close(scores.images, recorded.arrays[f"ep{epochs - 1}.test_image"], 2e-4)
    maps = settings.pixel_maps(scores.maps.view(-1, side, side), (recorded.side, recorded.side))
    close(maps, recorded.arrays[f"ep{epochs - 1}.test_map"], 2e-4)


def test_pairs_are_the_authors(recorded: Recorded) -> None:
    vectors, nearest = recorded.arrays["pairs_x"], recorded.arrays["pairs_nn"]
    # Duplicates: the authors' search does not tell them from themselves.
    alike = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist") == 0
    clear = alike.sum(1) == 1
    assert clear.sum() > 40
    pairs, expected = mutual_pairs(vectors), recorded.arrays["pairs_matched"]
    assert torch.equal(pairs[:, clear[pairs[0]]], expected[:, clear[expected[0]]])
    assert torch.equal(nearest[pairs[0, clear[pairs[0]]]], pairs[1, clear[pairs[0]]])
    twins = alike.triu(1).nonzero()
    assert all(any(torch.equal(twin, pair) for pair in pairs.T) for twin in twins)


# --- pseudo labels ---------------------------------------------------------------------------


def test_noise_has_the_largest_deviation_of_all_positions() -> None:
    batch = torch.randn(5, 7, 3)
    expected = torch.stack([batch[:, place].std(0) for place in range(7)]).amax(0)
    close(noise_deviation(batch), expected, 1e-6)
    assert torch.equal(noise_deviation(batch[:1]), torch.zeros(3))


def test_a_patch_in_the_bank_is_compared_with_the_next() -> None:
    bank = torch.tensor([[0.0], [5.0], [5.05]])
    distances = bank_distances(torch.tensor([[0.0], [1.0], [5.0], [8.0]]), bank)
    squares = torch.tensor([25.0, 1.0, 0.0, 2.95**2])  # of 0 to 5, of 5 to its double
    close(distances, squares / 25, 1e-6)


def test_a_bank_of_one_patch_and_equal_distances_give_zero() -> None:
    one = torch.zeros(1, 3)
    assert torch.equal(bank_distances(one, one), torch.zeros(1))
    assert torch.equal(bank_distances(torch.ones(4, 3), one), torch.zeros(4))
    assert mutual_pairs(one).shape == (2, 0)


def test_identical_vectors_still_make_pairs() -> None:
    pairs = mutual_pairs(torch.tensor([[1.0, 2.0], [9.0, 9.0], [1.0, 2.0], [9.0, 8.0]]))
    assert pairs.tolist() == [[0, 1], [2, 3]]


def test_images_below_half_the_range_look_normal() -> None:
    scores = torch.tensor([2.0, 3.0, 3.1, 4.0, 2.9])
    assert normal_images(scores, 0.5).tolist() == [0, 4]
    assert normal_images(scores, 1.0).tolist() == [0, 1, 2, 4]
    assert normal_images(torch.full((3,), 0.7), 0.5).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"no longer finite: lower fun_ad\.lr"):
        normal_images(torch.tensor([0.1, torch.nan]), 0.5)


def test_losses_without_one_kind_of_label_are_zero() -> None:
    scores, none = torch.full((2, 3), 0.25), torch.empty(2, 0, dtype=torch.long)
    labels = torch.zeros(2, 3, dtype=torch.bool)
    expected = torch.tensor([0.0, -torch.tensor(0.75).log().item(), 0.0])
    close(torch.stack(pseudo_label_losses(scores, labels, none)), expected, 1e-6)
    anomalous = pseudo_label_losses(scores, ~labels, none)
    close(torch.stack(anomalous)[1:], torch.zeros(2), 0.0)


# --- training --------------------------------------------------------------------------------


def category(images: int = 12, width: int = 6) -> tuple[TensorFeatures, Tensor]:
    """Return images of 3 x 3 patches and which of them hold a defect."""
    values = torch.randn(images, 9, width)
    defective = torch.arange(images) % 4 == 3
    values[defective, 4] += 6.0
    return TensorFeatures(values, (3, 3)), defective


def fit(features: TensorFeatures, seed: int = 1, **settings: Any) -> FunADFit:
    method = FunAD(**{**SMALL, **settings})
    return method.fit(features, group="bolt", seed=seed, progress=False)


def test_it_finds_the_defects_and_scores_alike_whether_trained_on_or_not() -> None:
    features, defective = category(24)
    trained = fit(features)
    assert auroc(trained.training.images.numpy(), defective.numpy()) > 0.95
    assert (trained.training.maps[defective].argmax(1) == 4).all()
    close(trained.training.images, trained.training.maps.amax(1), 0.0)
    assert ((trained.training.maps >= 0) & (trained.training.maps <= 1)).all()
    again = trained.score(features)
    close(again.maps, trained.training.maps, 1e-6)
    close(again.images, trained.training.images, 1e-6)
    one = trained.score(TensorFeatures(features.values[5:6], (3, 3)))
    close(one.maps, trained.training.maps[5:6], 1e-6)


def test_the_seed_and_the_name_decide_alone() -> None:
    features, _ = category()
    first, torch_state = fit(features), torch.random.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(fit(features).training.maps, first.training.maps)
    assert not torch.equal(fit(features, seed=2).training.maps, first.training.maps)
    other = FunAD(**SMALL).fit(features, group="nut", seed=1, progress=False)
    assert not torch.equal(other.training.maps, first.training.maps)
    torch.random.set_rng_state(torch_state)
    fit(features)
    assert torch.equal(torch.random.get_rng_state(), torch_state)


@pytest.mark.parametrize(
    ("images", "patches"), [(1, 9), (2, 9), (3, 1), (1, 1)], ids=["one", "two", "one patch", "1 1"]
)
def test_few_images_are_one_batch(images: int, patches: int) -> None:
    features = TensorFeatures(torch.randn(images, patches, 6), (1, patches))
    trained = fit(features, epochs=3)
    assert trained.training.maps.shape == (images, patches)
    assert trained.training.maps.isfinite().all()
    with torch_seeded(1, "fun_ad", "bolt"):
        untrained = FunADHead(6, (16, 8)).state_dict()
    state = trained.head.state_dict()
    assert not torch.equal(untrained["adaptor.0.weight"], state["adaptor.0.weight"])


def test_identical_images_have_equal_scores() -> None:
    features = TensorFeatures(torch.ones(6, 9, 4), (3, 3))
    scores = fit(features, epochs=3).training
    assert scores.maps.isfinite().all()
    assert (scores.maps == scores.maps[0, 0]).all()


def test_features_made_in_inference_mode_can_be_trained_on() -> None:
    with torch.inference_mode():
        features, _ = category()
        inside = fit(features, epochs=2)
    close(fit(features, epochs=2).training.maps, inside.training.maps, 0.0)
    outside = TensorFeatures(features.values.clone(), (3, 3))
    close(fit(outside, epochs=2).training.maps, inside.training.maps, 0.0)


class Counted(FunADDraws):
    def __init__(self) -> None:
        super().__init__(1, "bolt")
        self.banks: list[tuple[int, int]] = []
        self.orders = 0
        self.noisy: list[int] = []

    def order(self, count: int) -> Tensor:
        self.orders += 1
        return super().order(count)

    def bank(self, images: Tensor, count: int) -> Tensor:
        self.banks.append((len(images), count))
        drawn = super().bank(images, count)
        assert len(set(drawn.tolist())) == len(drawn) == count
        assert set(drawn.tolist()) <= set(images.tolist())
        return drawn

    def noise(self, count: int, width: int) -> Tensor:
        self.noisy.append(count)
        return super().noise(count, width)


@pytest.mark.parametrize(("refresh", "banks"), [(1, 6), (4, 2), (100, 1)])
def test_a_new_bank_is_drawn_every_few_steps(refresh: int, banks: int) -> None:
    draws, (features, _) = Counted(), category(11)
    settings = FunAD(**{**SMALL, "epochs": 3, "refresh": refresh, "bank": 0.3})
    train_head(FunADHead(6, (16, 8)), features.values, settings, draws)
    assert draws.orders == 3  # of 2 batches each: 3 images are left out
    assert len(draws.banks) == banks
    assert all(count == max(int(0.3 * normal), 1) for normal, count in draws.banks)


@pytest.mark.parametrize(("noise_below", "some"), [(0.5, False), (1.0, True)])
def test_noise_can_be_switched_off(noise_below: float, some: bool) -> None:
    draws, (features, _) = Counted(), category()
    settings = FunAD(**{**SMALL, "noise_below": noise_below})
    train_head(FunADHead(6, (16, 8)), features.values, settings, draws)
    assert (sum(draws.noisy) > 0) == some


def test_training_leaves_the_features_as_they_are() -> None:
    features, _ = category()
    before = features.values.clone()
    fit(features, epochs=2)
    assert torch.equal(features.values, before)


def test_a_training_that_diverges_is_refused() -> None:
    features, _ = category()
    with pytest.raises(UserError, match=r"fun_ad\.lr"):
        fit(features, lr=1e30, epochs=3)
    with pytest.raises(UserError, match=r"fun_ad\.lr"):
        fit(features, lr=1e38, epochs=1, batch_size=12)  # by its last step


def test_the_patent_is_told_once_and_by_one_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, _ = category(2)
    fun_ad._tell_of_the_patent.cache_clear()
    fit(features, epochs=1)
    fit(features, epochs=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "patent application" in lines[0]
    fun_ad._tell_of_the_patent.cache_clear()
    monkeypatch.setenv("RANK", "1")
    fit(features, epochs=1)
    assert capsys.readouterr().err == ""


def test_a_bar_is_shown_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    features, _ = category(2)
    FunAD(**{**SMALL, "epochs": 7}).fit(features, group="bolt", seed=1, progress=True)
    assert "FUN-AD bolt" in capsys.readouterr().err


# --- features --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (
            "vit_base_patch14_reg4_dinov2",
            {"layers": [1], "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 4}},
        ),
        ("resnet10t", {"layers": [1, 2]}),
    ],
)
def test_features_are_the_images_vector_and_the_patchs(
    model: str, arguments: dict[str, Any]
) -> None:
    size = 28 if "vit" in model else 32
    encoder = build_encoder(model=model, image_size=size, weights="random", **arguments)
    module = FunAD().features(encoder).train()
    assert isinstance(module, GlobalAndLocal)
    assert module.encoder is encoder
    images = torch.randn(2, 3, size, size)
    features = module(images)
    assert not features.requires_grad
    patches = encoder.features(images)
    width = patches.shape[2]
    assert torch.equal(features[..., width:], patches)
    if "vit" in model:
        with torch.no_grad():
            summary = encoder.model.forward_features(images)[:, 0]
    else:
        summary = patches.mean(1)
    for place in range(patches.shape[1]):
        close(features[:, place, :width], summary, 1e-6)


# --- settings --------------------------------------------------------------------------------


def test_the_defaults_are_the_authors() -> None:
    method = FunAD()
    assert (method.epochs, method.batch_size, method.lr, method.momentum) == (1500, 32, 2e-5, 0.2)
    head = FunADHead(1536, method.hidden)
    assert sum(p.numel() for p in head.parameters()) == 4_066_049


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("epochs", "batch_size", "refresh") for value in (0, 1.5, "x")),
        *((key, value) for key in ("bank", "normal_below") for value in (0, 1.1, None, True)),
        *((key, value) for key in ("momentum", "label_above") for value in (-0.1, 1, "x")),
        *(("noise_below", value) for value in (-0.1, 1.1, float("nan"))),
        *((key, value) for key in ("lr", "sigma", "smoothness") for value in (-1, float("inf"))),
        ("lr", 0),
        *(("hidden", value) for value in ([], 5, "12", [3, 0], [3, 1.5], [True])),
    ],
)
def test_a_bad_value_is_named(key: str, value: object) -> None:
    arguments: dict[str, Any] = {key: value}
    with pytest.raises(UserError, match=rf"^fun_ad\.{key} must be .*, got ") as caught:
        FunAD(**arguments)
    assert "\n" not in str(caught.value)


def test_the_ends_of_what_is_allowed_are_allowed() -> None:
    FunAD(bank=1, normal_below=1, momentum=0, label_above=0, noise_below=1, smoothness=0, sigma=0)
