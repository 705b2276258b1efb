"""Importing the package."""

from __future__ import annotations

import subprocess
import sys

import backbones
from tests.conftest import PROJECT


def test_importing_backbones_loads_nothing_heavy() -> None:
    code = (
        "import sys, backbones; assert not {'torch', 'timm'} & set(sys.modules); "
        "import backbones.dinomaly, backbones.hvq, backbones.anomalib; "
        "assert not {'timm', 'lightning', 'anomalib'} & set(sys.modules); "
        "assert backbones.Dinomaly is backbones.dinomaly.Dinomaly; "
        "assert backbones.INPFormer.__module__ == 'backbones.inp_former'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_public_names_are_there() -> None:
    assert all(hasattr(backbones, name) for name in backbones.__all__)
    assert not hasattr(backbones, "NoSuchDetector")
