from __future__ import annotations

import torch
from torch import Tensor, nn

from meds_plugin.detectors.view import DetectorView
from meds_plugin.training.own_loss import own_loss


class Scale(nn.Module):
    """A detector whose map is the image times a weight, and whose loss is the mean map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.mean(1)


def run(held: int | None) -> tuple[Tensor, list[list[int]]]:
    asked: list[list[int]] = []

    def hold(scores: Tensor, index: Tensor) -> Tensor:
        asked.append(index.tolist())
        return (10 - scores).mean()

    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    batch = {"index": torch.tensor([5, 6, 7, 8]), "category": torch.zeros(4, dtype=torch.int64)}
    extra = {} if held is None else {"held": held}
    view = DetectorView(Scale(), lambda images: images)
    settings = {"step": 0, "total_steps": 1}
    return own_loss(view, images, {**batch, **extra}, **settings, top=0.0, hold=hold), asked


def test_without_held_images_it_is_the_detectors_loss() -> None:
    for held in (None, 0):
        loss, asked = run(held)
        assert loss == 1.5
        assert asked == []


def test_held_images_are_held_and_weigh_as_much_as_others() -> None:
    loss, asked = run(1)
    assert asked == [[8]]
    assert loss == (3 * 1.0 + 1 * 7.0) / 4


def test_where_all_are_held_every_parameter_still_gets_a_gradient() -> None:
    loss, asked = run(4)
    assert asked == [[5, 6, 7, 8]]
    assert loss == 8.5
