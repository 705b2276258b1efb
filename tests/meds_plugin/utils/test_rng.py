from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from meds_plugin.utils.rng import derive_seed, numpy_rng, torch_generator, torch_seeded

if TYPE_CHECKING:
    import pytest


def test_purposes_are_independent_of_each_other_and_of_order() -> None:
    assert derive_seed(0, "noise", "a") == derive_seed(0, "noise", "a")
    seeds = {derive_seed(seed, *p) for seed in (0, 1) for p in (("a",), ("a", 1), ("a", "1"), ())}
    assert len(seeds) == 8
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")
    assert numpy_rng(0, "x").integers(1 << 30) == numpy_rng(0, "x").integers(1 << 30)
    assert torch.equal(
        torch.rand(3, generator=torch_generator(4, "x")),
        torch.rand(3, generator=torch_generator(4, "x")),
    )


def test_the_global_generator_is_put_back() -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(2)
    torch.manual_seed(1)
    with torch_seeded(0, "init"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), undisturbed)
    with torch_seeded(0, "init"):
        assert torch.equal(torch.rand(2), inside)


def test_only_generators_in_use_are_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed keeps a seed, with a stack trace, for each kind of device not in use."""
    monkeypatch.delattr(torch, "manual_seed")
    with torch_seeded(0, "init"):
        first = torch.rand(2)
    with torch_seeded(0, "init", device=torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
