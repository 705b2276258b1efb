"""The tree's own rules: who may import whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from typing import TYPE_CHECKING

import backbones
import meds_plugin
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

PURE = (
    "contamination",
    "distillation",
    "evaluation",
    "heatmap",
    "memory",
    "metrics",
    "ranking",
    "rng",
    "selection",
    "stages",
    "thresholds",
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_plugin_never_imports_the_backbones() -> None:
    for path in (PROJECT / "meds_plugin").rglob("*.py"):
        assert not any(name.split(".")[0] == "backbones" for name in imports(path)), path


def test_backbones_use_the_lower_part_of_the_plugin_only() -> None:
    lower = {"atomic", "detector", "encoder", "encoder_weights", "errors", "frozen_encoder"}
    allowed = lower | {"metrics", "optim", "options", "reader", "rng"}
    for path in (PROJECT / "backbones").rglob("*.py"):
        used = {n.split(".")[1] for n in imports(path) if n.startswith("meds_plugin.")}
        assert used <= allowed, path


def test_pure_modules_know_neither_lightning_nor_hydra() -> None:
    for name in PURE:
        used = {n.split(".")[0] for n in imports(PROJECT / "meds_plugin" / f"{name}.py")}
        assert not used & {"lightning", "hydra", "omegaconf"}, name


def test_nothing_below_the_command_line_imports_it() -> None:
    top = {"meds_plugin.run", "meds_plugin.job", "meds_plugin.predict", "meds_plugin.export"}
    for path in (PROJECT / "meds_plugin").rglob("*.py"):
        if path.name not in ("run.py", "job.py"):
            assert not imports(path) & top, path


def test_every_public_name_imports_and_is_documented() -> None:
    for package in (meds_plugin, backbones):
        for name in package.__all__:
            assert getattr(package, name).__doc__, name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            assert module.__doc__, info.name
            for name in getattr(module, "__all__", []):
                assert hasattr(module, name), f"{info.name}.{name}"


def test_modules_stay_readable() -> None:
    for package in ("meds_plugin", "backbones"):
        for path in (PROJECT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
