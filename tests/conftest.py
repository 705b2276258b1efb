"""Fixtures shared by all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"

# Tests are small: more threads only wait for each other.
torch.set_num_threads(1)

Arrays = dict[str, "NDArray[Any]"]
Refuse = Callable[..., str]


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


@pytest.fixture
def refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Return a function that runs the command line here, expects status 2, and gives the line."""
    from meds_plugin.run import main  # other tests need no Hydra

    for name in ("MEDS_STARTED", "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "1")  # put back afterwards

    def call(*overrides: str) -> str:
        arguments = ["meds_plugin.run", *overrides, f"hydra.run.dir={tmp_path / 'run'}"]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        err = capsys.readouterr().err
        assert ended.value.code == 2, err
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1, err
        return lines[0]

    return call
