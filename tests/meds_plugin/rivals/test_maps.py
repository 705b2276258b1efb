from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from meds_plugin.rivals.maps import resized_maps


@pytest.mark.parametrize(("sigma", "size"), [(4.0, (56, 40)), (13.0, (32, 32)), (4.0, (9, 8))])
def test_smoothing_is_scipys(sigma: float, size: tuple[int, int]) -> None:
    maps = torch.rand(3, 7, 5)
    large = resized_maps(maps, size, sigma=0)
    expected = np.stack([gaussian_filter(each, sigma) for each in large.numpy()])
    found = resized_maps(maps, size, sigma=sigma)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0.0, atol=1e-6)


def test_resampling_repeats_interpolates_or_aligns_corners() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    nearest = resized_maps(maps, (4, 4), resampling="nearest", sigma=0)
    assert nearest[0, 0].tolist() == [0, 0, 1, 1]
    aligned = resized_maps(maps, (4, 4), resampling="aligned", sigma=0)
    torch.testing.assert_close(aligned[0, 0], torch.tensor([0, 1 / 3, 2 / 3, 1]))
    assert resized_maps(maps, (4, 4), sigma=0)[0, 0].tolist() == [0, 0.25, 0.75, 1]
