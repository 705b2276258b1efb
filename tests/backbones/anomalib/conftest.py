"""Fixtures of tests of anomalib's models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import timm

if TYPE_CHECKING:
    from torch import nn


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return ``anomalib.models``, with random weights where it would download."""
    found = pytest.importorskip("anomalib.models", reason="the extra anomalib is not installed")
    create = timm.create_model

    def untrained(*args: Any, **arguments: Any) -> nn.Module:
        network: nn.Module = create(*args, **{**arguments, "pretrained": False})
        return network

    monkeypatch.setattr(timm, "create_model", untrained)
    return found


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that anomalib is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "anomalib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "anomalib", None)
