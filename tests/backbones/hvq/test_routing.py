"""Which codes the images of a category get, in training and later."""

from __future__ import annotations

import copy

import pytest
import torch

from meds_plugin.utils.errors import UserError
from tests.backbones.hvq.small import encoded_images, make


def test_one_set_of_codes_asks_for_no_category() -> None:
    model = make().train()
    encoded = encoded_images()
    twin = copy.deepcopy(model)
    maps = model.anomaly_map(encoded)
    assert torch.equal(twin.anomaly_map(encoded, category=torch.tensor([3, 1, 0, -1])), maps)


def test_categories_have_codes_and_last_layers_of_their_own() -> None:
    model = make(classes=3, routing="label").train()
    encoded, category = encoded_images(), torch.tensor([0, 2, 0, 2])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.autograd.backward(model.loss(encoded, step=0, total_steps=1, category=category))
    for level in range(3):
        own, old = model.get_buffer(f"codebooks.{level}.embed"), before[f"codebooks.{level}.embed"]
        assert torch.equal(own[1], old[1])
        assert not torch.equal(own[0], old[0])
    assert model.output_weight.grad is not None
    assert model.output_weight.grad.flatten(1).abs().sum(1).ne(0).tolist() == [True, False, True]
    model.eval()
    maps = model.anomaly_map(encoded, category=category)
    swapped = model.anomaly_map(encoded, category=torch.tensor([2, 2, 0, 0]))
    changed = (maps - swapped).abs().amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [True, False, False, True]


def test_without_a_label_images_go_to_the_category_they_are_most_like() -> None:
    model = make(classes=3).train()
    offset = torch.tensor([0.0, 4.0, -4.0]).view(3, 1, 1, 1)
    category = torch.tensor([0, 1, 2, 0, 1, 2])
    for step in range(3):
        model.anomaly_map(encoded_images(6, seed=step) + offset[category], category=category)
    assert model.router.count.tolist() == [6, 6, 6]
    pooled = torch.cat(
        [(encoded_images(6, seed=s) + offset[category]).mean((2, 3)) for s in range(3)]
    )
    for place in range(3):
        expected = pooled[category.repeat(3) == place].mean(0)
        torch.testing.assert_close(model.router.mean[place], expected)
    model.eval()
    later = torch.tensor([2, 2, 1, 0])
    encoded = encoded_images(4, seed=9) + offset[later]
    by_features = model.anomaly_map(encoded)
    model.router.routing = "label"
    assert torch.equal(model.anomaly_map(encoded, category=later), by_features)
    assert torch.equal(model.anomaly_map(encoded, category=torch.full((4,), -1)), by_features)
    model.router.routing = "nearest"
    wrong = torch.zeros(4, dtype=torch.long)
    assert torch.equal(model.anomaly_map(encoded, category=wrong), by_features)  # no label leaks


def test_images_of_no_category_do_not_move_the_means() -> None:
    model = make(classes=2).train()
    model.anomaly_map(encoded_images(), category=torch.tensor([1, -1, 1, -1]))
    assert model.router.count.tolist() == [0, 2]
    torch.testing.assert_close(model.router.mean[1], encoded_images()[[0, 2]].mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("routing", "training", "category", "told"),
    [
        ("nearest", True, None, "classes=2 needs the category"),
        ("label", False, None, "classes=2 needs the category"),
        ("label", False, 2, "index 2"),
        ("nearest", True, 5, "index 5"),
    ],
)
def test_categories_that_are_not_there_are_named(
    routing: str, training: bool, category: int | None, told: str
) -> None:
    model = make(classes=2, routing=routing).train(training)
    given = None if category is None else torch.tensor([0, 1, category, 0])
    with pytest.raises(UserError, match=told):
        model.anomaly_map(encoded_images(), category=given)
