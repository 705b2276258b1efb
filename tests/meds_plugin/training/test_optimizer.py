"""The optimiser and schedule against the reference's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW

if TYPE_CHECKING:
    from collections.abc import Callable

    Golden = Callable[[str], dict[str, Any]]

RUNS = {
    "official": OptimizerSettings(),
    "official_sched": OptimizerSettings(warmup=5),
    "noamsgrad_wd": OptimizerSettings(
        lr=1e-2,
        betas=(0.8, 0.95),
        weight_decay=0.1,
        amsgrad=False,
        eps=1e-8,
        clip_threshold=0.5,
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_every_step_is_the_references(golden: Golden, run: str) -> None:
    data = golden("stable_adamw")
    names = ["a", "b", "c", "d", "z"]
    params = [nn.Parameter(torch.from_numpy(data[f"init.{name}"].copy())) for name in names]
    optimizer = StableAdamW(params, RUNS[run])
    for step, lr in enumerate(data[f"{run}.lr"]):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        for name, param in zip(names, params, strict=True):
            param.grad = torch.from_numpy(data[f"grads.{name}"][step].copy())
        optimizer.step()
        for name, param in zip(names, params, strict=True):
            after = torch.from_numpy(data[f"{run}.after.{name}"][step])
            torch.testing.assert_close(param.detach(), after, rtol=0.0, atol=2e-6)
    for name, param in zip(names, params, strict=True):
        moment = torch.from_numpy(data[f"{run}.state.exp_avg_sq.{name}"])
        torch.testing.assert_close(optimizer.state[param]["exp_avg_sq"], moment)


def test_the_schedule_is_the_references(golden: Golden) -> None:
    data = golden("warm_cosine")
    for step, lr in enumerate(data["lr_1000_100_2e-3_2e-4"]):
        assert abs(OptimizerSettings().lr_at(step, total=1000) - float(lr)) <= 1e-12
    base, final, total, warmup = (float(v) for v in data["second.params_base_final_total_warmup"])
    settings = OptimizerSettings(lr=base, final_lr=final, warmup=int(warmup))
    for step, lr in enumerate(data["second.lr"]):
        assert abs(settings.lr_at(step, total=int(total)) - float(lr)) <= 1e-12


def test_the_schedule_without_reference_files() -> None:
    settings = OptimizerSettings(lr=1.0, final_lr=0.1, warmup=4)
    rates = [settings.lr_at(i, total=12) for i in range(14)]
    assert rates[:5] == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    assert rates[8] == pytest.approx(0.55)
    assert rates[12:] == [0.1, 0.1]


@pytest.mark.parametrize("total", [1, 2, 3, 10, 100])
def test_a_run_shorter_than_the_warm_up_still_rises_and_falls(total: int) -> None:
    settings = OptimizerSettings(lr=1.0, final_lr=0.1, warmup=100)
    rates = [settings.lr_at(i, total=total) for i in range(total)]
    top = rates.index(max(rates))
    assert max(rates) == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert top <= total // 2


def test_no_steps_and_no_warm_up_are_fine() -> None:
    assert OptimizerSettings(final_lr=0.1).lr_at(0, total=0) == 0.1
    assert OptimizerSettings(lr=1.0, warmup=0).lr_at(0, total=5) == 1.0


def test_a_gradient_spike_shortens_the_step() -> None:
    moved = {}
    for limit in (None, 1.0):
        param = nn.Parameter(torch.zeros(8))
        settings = OptimizerSettings(weight_decay=0.0, clip_threshold=limit)
        optimizer = StableAdamW([param], settings)
        for gradient in (1e-3, 1e-3, 10.0):
            before = param.detach().clone()
            param.grad = torch.full((8,), gradient)
            optimizer.step()
        moved[limit] = float((param.detach() - before).abs().max())
    # The spike is sqrt(3) times the root of the corrected mean square over three steps.
    assert moved[None] / moved[1.0] == pytest.approx(3**0.5, rel=2e-3)


def test_a_tensor_without_gradient_stays_behind_and_is_corrected_by_its_own_steps() -> None:
    """As if each tensor had an optimiser of its own, one that knows only steps with gradient."""
    settings = OptimizerSettings()
    start = [torch.full((3,), 2.0), torch.full((2, 2), -1.0)]
    together = [nn.Parameter(value.clone()) for value in start]
    alone = [nn.Parameter(value.clone()) for value in start]
    shared = StableAdamW(together, settings)
    single = [StableAdamW([param], settings) for param in alone]
    for step in range(5):
        for place, own in enumerate(single):
            gradient = None if place == 1 and step < 3 else 0.1 * (step + 1) * start[place]
            together[place].grad, alone[place].grad = gradient, gradient
            own.step()
        shared.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)
    assert [shared.state[param]["step"] for param in together] == [5, 2]


def test_it_goes_on_from_a_saved_state_and_returns_the_closures_loss() -> None:
    param, other = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    first, second = (StableAdamW([each], OptimizerSettings()) for each in (param, other))
    param.grad = torch.full((4,), 0.3)
    first.step()
    with torch.no_grad():
        other.copy_(param)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each, optimizer in ((param, first), (other, second)):

        def loss(each: nn.Parameter = each, optimizer: StableAdamW = optimizer) -> float:
            optimizer.zero_grad()
            value = each.square().sum()
            value.backward()
            return float(value.detach())

        assert optimizer.step(loss) == pytest.approx(4 * float(param.detach()[0]) ** 2, rel=1e-2)
    assert torch.equal(param, other)
