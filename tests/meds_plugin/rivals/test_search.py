from __future__ import annotations

import pytest
import torch

from meds_plugin.rivals import search
from meds_plugin.rivals.search import nearest


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("table", [7, 1 << 24])
def test_it_finds_the_nearest(monkeypatch: pytest.MonkeyPatch, k: int, table: int) -> None:
    monkeypatch.setattr(search, "_TABLE_ELEMENTS", table)
    queries, bank = torch.randn(20, 6), torch.randn(9, 6)
    expected = torch.cdist(queries, bank).square().topk(k, largest=False)
    distances, places = nearest(queries, bank, k)
    torch.testing.assert_close(distances, expected.values, rtol=1e-5, atol=1e-5)
    assert torch.equal(places, expected.indices)


def test_what_is_left_out_is_not_found_and_no_more_than_there_is() -> None:
    bank = torch.randn(4, 6)
    distances, places = nearest(bank, bank, 9, left_out=torch.tensor([True, False, False, False]))
    assert places.shape == distances.shape == (4, 3)
    assert not bool((places == 0).any())
    assert distances[1:, 0].tolist() == [0, 0, 0]  # exactly, whatever the expanded form gives


def test_vectors_far_from_the_origin_keep_their_distances() -> None:
    bank = 1000 + torch.randn(50, 16)
    queries = bank + 0.01
    distances, _ = nearest(queries, bank)
    torch.testing.assert_close(distances[:, 0], torch.full((50,), 16e-4), rtol=0.05, atol=0.0)
