"""Where the configuration lies: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["conf_dir"]


def conf_dir() -> str:
    """Return the absolute path of ``conf``."""
    inside = Path(str(files("meds_plugin"))) / "conf"
    beside = Path(__file__).resolve().parents[2] / "conf"
    return str(inside if inside.is_dir() else beside)
