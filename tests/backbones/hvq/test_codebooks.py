"""Codebooks: lookups, moving averages by hand, starts that do not collapse, sampled tokens."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.distributed import ReduceOp

from backbones.hvq.codebooks import Codebooks

if TYPE_CHECKING:
    from collections.abc import Callable


def tokens(count: int = 6, seed: int = 0, *, length: int = 20, dim: int = 4) -> Tensor:
    return torch.randn(count, length, dim, generator=torch.Generator().manual_seed(seed))


def books(sets: int = 3, codes: int = 8, dim: int = 4, **arguments: Any) -> Codebooks:
    return Codebooks(sets, codes, dim, **arguments).train()


def test_tokens_become_the_nearest_code_of_their_set() -> None:
    level = books(init="normal").eval()
    given, category = tokens(), torch.tensor([2, 0, 1, 1, 0, 2])
    codes, latent, ids = level(given, category)
    distance = (given.unsqueeze(2) - level.embed[category].unsqueeze(1)).square().sum(-1)
    assert torch.equal(ids, distance.argmin(-1))
    torch.testing.assert_close(codes, level.embed[category[:, None], ids])
    torch.testing.assert_close(latent, (codes - given).square().mean())


def test_gradients_pass_straight_through_and_codes_get_none() -> None:
    level = books(init="normal")
    given = tokens().requires_grad_()
    codes, latent, _ = level(given, torch.zeros(6, dtype=torch.long))
    weights = torch.randn_like(codes)
    (through,) = torch.autograd.grad((codes * weights).sum(), given, retain_graph=True)
    assert torch.equal(through, weights)
    (pull,) = torch.autograd.grad(latent, given)
    torch.testing.assert_close(pull, 2.0 * (given - codes).detach() / given.numel())
    assert not list(level.parameters())


@pytest.mark.parametrize("update", ["batch", "image"])
def test_codes_follow_the_mean_of_their_tokens(update: str) -> None:
    level = books(1, 2, 1, init="normal", update=update, decay=0.9)
    level.embed.copy_(torch.tensor([[[-1.0], [1.0]]]))
    level.embed_avg.copy_(level.embed)
    given = torch.tensor([[[-3.0], [2.0], [4.0]], [[-1.0], [-2.0], [3.0]]])
    level(given, torch.zeros(2, dtype=torch.long))
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
    sums, later = torch.tensor([-3.0, 6.0]), torch.tensor([-3.0, 3.0])
    if update == "image":
        size = 0.9 * (0.9 + 0.1 * first) + 0.1 * second
        total = 0.9 * (0.9 * torch.tensor([-1.0, 1.0]) + 0.1 * sums) + 0.1 * later
    else:
        size = 0.81 + 0.095 * (first + second)
        total = 0.81 * torch.tensor([-1.0, 1.0]) + 0.095 * (sums + later)
    torch.testing.assert_close(level.cluster_size[0], size)
    torch.testing.assert_close(level.embed_avg[0, :, 0], total)
    torch.testing.assert_close(level.embed[0, :, 0], total / size, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("update", ["batch", "image"])
def test_a_batch_is_as_its_categories_one_by_one(update: str) -> None:
    category = torch.tensor([2, 0, 2, 0, 0, 2])
    together = books(init="normal", update=update)
    apart = books(init="normal", update=update)
    codes, _, _ = together(tokens(), category)
    for place in (0, 2):
        members = category == place
        alone, _, _ = apart(tokens()[members], category[members])
        torch.testing.assert_close(codes[members], alone)
    torch.testing.assert_close(together.embed, apart.embed)
    assert torch.equal(together.embed[1], books(init="normal").embed[1])  # none of its images


def test_by_image_is_one_image_after_another() -> None:
    category = torch.tensor([1, 0, 1, 1, 0, 1])
    batch, single = books(init="normal", update="image"), books(init="normal", update="image")
    codes, _, _ = batch(tokens(), category)
    singly = [single(tokens()[[i]], category[[i]])[0] for i in range(6)]
    torch.testing.assert_close(codes, torch.cat(singly))
    torch.testing.assert_close(batch.embed, single.embed)


def test_only_by_image_the_order_of_a_batch_matters() -> None:
    category = torch.tensor([1, 0, 1, 1, 0, 1])
    order = torch.tensor([3, 4, 0, 5, 1, 2])
    found = {}
    for update in ("batch", "image"):
        first, other = books(init="normal", update=update), books(init="normal", update=update)
        codes, _, _ = first(tokens(), category)
        turned, _, _ = other(tokens()[order], category[order])
        same = torch.allclose(codes[order], turned, atol=1e-6)
        found[update] = same and torch.allclose(first.embed, other.embed, atol=1e-6)
    assert found == {"batch": True, "image": False}


# --- how codes start -------------------------------------------------------------------------


def clusters(count: int, seed: int) -> Tensor:
    """Return tokens near 40 places, as features are."""
    places = torch.randn(40, 32, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(40, (count, 64), generator=generator)
    return places[which] + 0.3 * torch.randn(count, 64, 32, generator=generator)


def codes_found(init: str, *, steps: int = 30, **arguments: Any) -> int:
    level = books(1, 64, 32, init=init, **arguments)
    zeros = torch.zeros(4, dtype=torch.long)
    for step in range(steps):
        ids = level(clusters(4, step), zeros)[2]
    return len(ids.unique())


def test_codes_from_data_do_not_collapse_as_the_references_do() -> None:
    assert codes_found("data") > 30
    assert codes_found("reference", update="image") <= 3


def test_the_references_start_throws_codes_without_tokens_far_away() -> None:
    level = books(1, 64, 32, init="reference", update="image")
    level(clusters(1, 0), torch.zeros(1, dtype=torch.long))
    unused = level.cluster_size[0] == 0
    assert bool(unused.any())
    assert float(level.embed[0, unused].norm(dim=-1).min()) > 1e3


def test_codes_from_data_are_tokens_of_their_category_each_taken_once() -> None:
    level = books(3, 8, update="image", decay=0.0)
    given, category = tokens(4, length=3), torch.tensor([2, 0, 2, 2])
    level._replace_lost(given, category)
    assert level.started.tolist() == [True, False, True]
    for place in (0, 2):
        own = given[category == place].flatten(0, 1)
        near = torch.cdist(level.embed[place], own)
        assert float(near.amin(1).max()) < 1e-3
        assert len(near.argmin(1).unique()) == min(8, len(own))
    assert torch.equal(level.embed[1], books(3, 8).embed[1])
    torch.testing.assert_close(level.embed_avg[2], 3 / 8 * level.embed[2])


def test_a_set_starts_with_its_first_images_only() -> None:
    level = books(2, 8)
    level(tokens(2), torch.tensor([0, 0]))
    before = level.embed[0].clone()
    level._replace_lost(tokens(2, seed=1), torch.tensor([0, 1]))
    assert torch.equal(level.embed[0], before)
    assert bool(level.started.all())


def test_codes_that_stand_for_nothing_start_anew_where_asked() -> None:
    for revival in (0.0, 0.1):
        level = books(1, 8, revival=revival, decay=0.5)
        zeros = torch.zeros(2, dtype=torch.long)
        level(tokens(2), zeros)
        level.embed[0, 3:] = 1e3  # nothing is near
        level.embed_avg[0, 3:] = 1e3 * level.cluster_size[0, 3:, None]
        for step in range(6):
            ids = level(tokens(2, seed=step), zeros)[2]
        assert (int(ids.max()) > 2) == (revival > 0)


def test_sampled_tokens_depend_only_on_the_seed_and_how_often_they_were_sampled() -> None:
    torch.manual_seed(1)
    first, again, other = books(seed=1), books(seed=1), books(seed=2)
    for level in (first, again, other):
        torch.rand(3)
        level(tokens(), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert torch.equal(first.embed, again.embed)
    assert not torch.equal(first.embed, other.embed)
    assert int(first.draws) == 1


# --- several processes -----------------------------------------------------------------------


def in_processes(monkeypatch: pytest.MonkeyPatch, *jobs: Callable[[], object]) -> None:
    """Run jobs in threads that pose as the processes of a distributed job."""
    barrier, me = threading.Barrier(len(jobs), timeout=30), threading.local()
    values: list[Tensor] = [torch.empty(0)] * len(jobs)
    reduce: dict[Any, Callable[[Tensor], Tensor]] = {
        ReduceOp.SUM: lambda stack: stack.sum(0),
        ReduceOp.MIN: lambda stack: stack.amin(0),
        ReduceOp.MAX: lambda stack: stack.amax(0),
    }

    def all_reduce(value: Tensor, op: Any = ReduceOp.SUM) -> None:
        values[me.rank] = value.clone()
        barrier.wait()
        result = reduce[op](torch.stack(values))
        barrier.wait()
        value.copy_(result)

    def start(rank: int) -> None:
        me.rank = rank
        jobs[rank]()

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: me.rank)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: len(jobs))
    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(start, rank) for rank in range(len(jobs))]:
            done.result()


@pytest.mark.parametrize("update", ["batch", "image"])
def test_processes_share_their_counts(monkeypatch: pytest.MonkeyPatch, update: str) -> None:
    """Two processes with half a batch each move the codes as one with all of it."""
    # By image, the processes' rounds are those of one only where they share no category.
    category = torch.tensor([0, 1, 1, 2] if update == "batch" else [0, 0, 1, 2])
    settings: dict[str, Any] = {"init": "normal", "update": update}
    alone = books(**settings)
    alone(tokens(4), category)
    shared = [books(**settings), books(**settings)]
    in_processes(
        monkeypatch,
        lambda: shared[0](tokens(4)[:2], category[:2]),
        lambda: shared[1](tokens(4)[2:], category[2:]),
    )
    for one in shared:
        torch.testing.assert_close(one.embed, alone.embed)
        torch.testing.assert_close(one.cluster_size, alone.cluster_size)


@pytest.mark.parametrize("update", ["batch", "image"])
def test_processes_start_with_the_same_codes(monkeypatch: pytest.MonkeyPatch, update: str) -> None:
    """Set 0 has images in both, 1 in the second only, 2 in none."""
    shared = [books(update=update), books(update=update)]
    halves = tokens(4)[:2], tokens(4)[2:]
    in_processes(
        monkeypatch,
        lambda: shared[0](halves[0], torch.tensor([0, 0])),
        lambda: shared[1](halves[1], torch.tensor([0, 1])),
    )
    one, other = shared
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name)
    assert one.started.tolist() == [True, True, False]
    torch.testing.assert_close(one.embed[2], books().embed[2])
    # Every code started as a token and has only seen tokens since.
    largest = float(tokens(4).abs().max())
    assert float(one.embed[:2].abs().max()) <= largest * 1.01
