from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from meds_plugin.detectors.side_effects import untouched

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.nested: dict[str, list[Tensor]] = {"codes": [torch.zeros(2)]}

    def forward(self, values: Tensor) -> Tensor:
        mixed: Tensor = self.norm(self.layer(values))
        return mixed


def test_everything_is_as_before() -> None:
    net = Net().eval()
    codes = net.nested["codes"][0]
    weight, before = net.layer.weight, net.layer.weight.detach().clone()
    with untouched(net, device=CPU):
        net.train()
        net.norm(torch.randn(3, 2))
        net.layer.weight = nn.Parameter(torch.zeros(2, 2))
        weight.data.mul_(2)
        weight.grad = torch.ones(2, 2)
        codes.add_(1)
        net.nested["codes"].append(codes)
        net.nested["more"] = []
        net.extra = nn.Linear(1, 1)
        net.register_forward_hook(lambda *_: None)
    assert net.layer.weight is weight
    assert torch.equal(weight, before)
    assert weight.grad is None
    assert not any(part.training for part in net.modules())
    assert net.norm.running_mean is not None
    assert torch.equal(net.norm.running_mean, torch.zeros(2))
    assert int(net.get_buffer("norm.num_batches_tracked")) == 0
    assert list(net.nested) == ["codes"]
    assert torch.equal(codes, torch.zeros(2))
    assert len(net.nested["codes"]) == 1
    assert not hasattr(net, "extra")
    assert not net._forward_hooks


def test_the_random_state_is_the_same_inside_each_time_and_untouched_outside() -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(1)
        torch.manual_seed(seed)
        with untouched(device=CPU):
            drawn.append(torch.rand(1))
        assert torch.equal(torch.rand(1), expected)
    assert torch.equal(*drawn)


def test_also_after_an_error() -> None:
    net = Net()
    with pytest.raises(RuntimeError, match="shapes"), untouched(net.eval(), device=CPU):
        net.train()(torch.zeros(3, 5))
    assert not net.training
