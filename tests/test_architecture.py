"""The tree's own rules: layers that go one way, and what is public."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from typing import TYPE_CHECKING

import pytest

import backbones
import meds_plugin
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# From bottom to top: each imports from those above it in this list only, and from itself.
LAYERS = (
    "utils",
    "tiles",
    "distributed",
    "metrics",
    "ranking",
    "selection",
    "encoders",
    "memory",
    "rivals",
    "detectors",
    "encoding",
    "training",
    "callbacks",
    "evaluation",
    "wrapper",
    "faults",
    "data",
    "config",
    "runs",
    "prediction",
    "figures",
    "review",
    "sweeps",
    "job",
)
COMMANDS = ("__main__", "export", "plot", "predict", "run", "table")
# What detectors are built on.
FOR_BACKBONES = {"utils", "metrics", "encoders", "encoding"}
PURE = (
    "evaluation.alarms",
    "evaluation.categories",
    "evaluation.protocol",
    "faults",
    "memory",
    "metrics",
    "prediction.heatmap",
    "ranking",
    "selection",
    "tiles",
    "training.distillation",
    "training.optimizer",
    "training.stages",
    "utils.rng",
)


def module_names() -> dict[str, Path]:
    """Return the modules of the plugin by dotted name."""
    root = PROJECT / "meds_plugin"
    names = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports, under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = module_names()


def uses(name: str) -> set[str]:
    """Return the modules of the plugin that one of them imports."""
    found = set()
    for each in imports(MODULES[name]):
        parent = each.rpartition(".")[0]
        found |= {each if each in MODULES else parent} & MODULES.keys()
    return found - {name}


def layer(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"meds_plugin"}))
def test_imports_go_down_the_layers(name: str) -> None:
    own = layer(name)
    below = {*LAYERS, *COMMANDS} if own in COMMANDS else {*LAYERS[: LAYERS.index(own)], own}
    for used in uses(name):
        assert used != "meds_plugin", "the package's own names are for its users"
        assert layer(used) in below, f"{name} imports {used}"


def test_there_is_no_cycle_within_a_package() -> None:
    left = {name: uses(name) for name in MODULES if name != "meds_plugin"}
    while done := {name for name, used in left.items() if not used & left.keys()}:
        left = {name: used for name, used in left.items() if name not in done}
    assert not left


def test_the_top_level_is_small() -> None:
    assert len(list((PROJECT / "meds_plugin").glob("*.py"))) <= 12


def test_the_layers_are_those_of_the_documentation() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([a-z_/.]+)` \|", text, re.M)
    assert [row.rstrip("/").removesuffix(".py") for row in rows] == [*LAYERS[::-1]]


def test_the_plugin_never_imports_the_backbones() -> None:
    for name, path in MODULES.items():
        assert not any(each.split(".")[0] == "backbones" for each in imports(path)), name


def test_backbones_use_the_lower_part_of_the_plugin_only() -> None:
    for path in (PROJECT / "backbones").rglob("*.py"):
        used = {each.split(".")[1] for each in imports(path) if each.startswith("meds_plugin.")}
        assert used <= FOR_BACKBONES, path


def test_pure_modules_know_neither_lightning_nor_hydra() -> None:
    for prefix in (f"meds_plugin.{name}" for name in PURE):
        own = [path for name, path in MODULES.items() if f"{name}.".startswith(f"{prefix}.")]
        assert own, prefix
        for path in own:
            used = {each.split(".")[0] for each in imports(path)}
            assert not used & {"lightning", "hydra", "omegaconf"}, path


def test_every_public_name_imports_and_is_documented() -> None:
    for package in (meds_plugin, backbones):
        for name in package.__all__:
            assert getattr(package, name).__doc__, name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            assert module.__doc__, info.name
            for name in getattr(module, "__all__", []):
                assert hasattr(module, name), f"{info.name}.{name}"


def test_no_public_name_has_two_meanings() -> None:
    homes: dict[str, list[str]] = {}
    for path in [*MODULES.values(), *(PROJECT / "backbones").rglob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                homes.setdefault(node.name, []).append(str(path))
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1 and name != "main"}
    assert not twice


def test_modules_stay_readable() -> None:
    for package in ("meds_plugin", "backbones"):
        for path in (PROJECT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
