"""The device under test, and float32 products without TF32.

``MEDS_GPU_TESTS_DEVICE=cpu`` runs the tests on a CPU, to try the tests themselves.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = os.environ.get("MEDS_GPU_TESTS_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device() -> torch.device:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    return torch.device(DEVICE)


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = False
    yield
    cudnn.allow_tf32, products.allow_tf32 = before
