from __future__ import annotations

import pytest
import torch

from meds_plugin.training.distillation import distillation_loss, match_grid
from meds_plugin.utils.errors import UserError


def test_is_ten_times_the_mean_squared_or_absolute_difference() -> None:
    maps, targets = torch.rand(2, 3, 3), torch.rand(2, 3, 3)
    torch.testing.assert_close(
        distillation_loss(maps, targets), 10 * (maps - targets).square().mean()
    )
    torch.testing.assert_close(
        distillation_loss(maps, targets, kind="l1"), 10 * (maps - targets).abs().mean()
    )


def test_gradient_reaches_the_maps() -> None:
    maps = torch.rand(1, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(distillation_loss(maps, torch.zeros(1, 4, 4)), maps)
    assert bool((grad > 0).all())


def test_a_finer_map_is_judged_by_its_mean_over_each_patch() -> None:
    maps = torch.arange(16.0).view(1, 4, 4)
    pooled, target = match_grid(maps, torch.zeros(1, 2, 2))
    assert pooled.tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert target.shape == (1, 2, 2)


def test_a_coarser_map_meets_the_mean_of_its_targets() -> None:
    _, target = match_grid(torch.zeros(1, 1, 2), torch.arange(8.0).view(1, 2, 4))
    assert target.tolist() == [[[2.5, 4.5]]]


def test_refuses_unknown_losses() -> None:
    with pytest.raises(UserError, match="must be l2 or l1"):
        distillation_loss(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), kind="huber")  # type: ignore[arg-type]
