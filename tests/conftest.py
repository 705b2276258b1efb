"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"

# Tests are small: more threads only wait for each other.
torch.set_num_threads(1)

Arrays = dict[str, "NDArray[Any]"]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Arrays]:
    """Return a loader of the reference's outputs by file stem."""

    def load(name: str) -> Arrays:
        path = SHARED / "golden" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"reference outputs are not here: {path}")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
