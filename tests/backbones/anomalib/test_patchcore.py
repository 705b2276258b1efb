"""anomalib's PatchCore as a scorer of training images."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from backbones.anomalib import patchcore_scores
from meds_plugin.ranking import auprc, inspection_depth
from meds_plugin.utils.errors import UserError


class Marked(Dataset[Tensor]):
    """Noise of one or more categories; every fifth image has a bright square somewhere."""

    def __init__(self, count: int = 30, *, names: int = 1) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = 0.3 * torch.randn(count, 3, 64, 64, generator=generator)
        self.marked = torch.arange(count) % 5 == 0
        for index in range(0, count, 5):
            x, y = torch.randint(48, (2,), generator=generator).tolist()
            self.images[index, :, x : x + 14, y : y + 14] += 2.5
        self.categories = [str(i % names) for i in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def loader(data: Marked) -> DataLoader[Tensor]:
    return DataLoader(data, batch_size=4, shuffle=True)


def scores(data: Marked, **settings: Any) -> Tensor:
    return patchcore_scores(loader(data), pre_trained=False, backbone="resnet18", **settings)


@pytest.mark.usefixtures("library")
def test_defects_rank_first_when_scored_by_other_images() -> None:
    data = Marked()
    found = scores(data)
    assert found.shape == (30,)
    assert auprc(found, data.marked) == pytest.approx(1.0)
    assert inspection_depth(found, data.marked) == pytest.approx(0.2)
    # Stored in the memory themselves, they hide: the reason for the folds.
    assert auprc(scores(data, folds=1), data.marked) < 0.9


@pytest.mark.usefixtures("library")
def test_scores_are_in_the_data_sets_order_and_repeat() -> None:
    data = Marked(10)
    first = scores(data, folds=2)
    state = torch.get_rng_state()
    assert torch.equal(scores(data, folds=2), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(scores(data, folds=2, seed=1), first)


@pytest.mark.usefixtures("library")
def test_one_fold_is_anomalibs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("anomalib.models")
    data = Marked(8)
    ratio = 1.0  # all patches: nothing is sampled
    found = scores(data, folds=1, coreset_sampling_ratio=ratio, num_neighbors=1)
    assert float(found.max()) < 1e-2  # every patch is stored
    create = timm.create_model
    created: list[nn.Module] = []

    def record(*args: Any, **arguments: Any) -> nn.Module:
        created.append(create(*args, **arguments))
        return created[-1]

    monkeypatch.setattr(timm, "create_model", record)
    held_out = scores(data, folds=8, coreset_sampling_ratio=ratio)
    network = created[-1]
    module = models.Patchcore(backbone="resnet18", pre_trained=False, coreset_sampling_ratio=ratio)
    module.model.feature_extractor.feature_extractor = network
    module.model.train()
    module.model(data.images[1:])
    with pytest.deprecated_call():  # of an argument that nobody gives
        module.model.subsample_embedding(ratio)
    module.model.eval()
    expected = module.model(data.images[:1]).pred_score
    torch.testing.assert_close(held_out[:1], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("library")
def test_categories_have_memories_of_their_own() -> None:
    both, alone = Marked(12, names=2), Marked(12)
    alone.images = alone.images[::2]
    alone.categories = ["0"] * 6
    torch.testing.assert_close(scores(both, folds=3)[::2], scores(alone, folds=3))


@pytest.mark.usefixtures("library")
def test_progress_is_shown_only_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    data = Marked(4)
    scores(data, folds=2)
    assert capfd.readouterr() == ("", "")
    scores(data, folds=2, progress=True)
    assert "Coreset" in capfd.readouterr().err


@pytest.mark.usefixtures("library")
def test_a_category_of_one_image_is_refused() -> None:
    with pytest.raises(UserError, match="category '0' has only one image"):
        scores(Marked(1))


@pytest.mark.parametrize("folds", [0, -1, 2.5])
def test_folds_must_be_a_number_of_folds(folds: Any) -> None:
    with pytest.raises(UserError, match="folds must be a whole number of at least 1"):
        patchcore_scores(loader(Marked(4)), folds=folds)
