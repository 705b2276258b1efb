"""What the documents name is there, and what they tell people to type works."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from PIL import Image

import meds_plugin
from meds_plugin import MeDSWrapper
from meds_plugin.config.command_line import Options
from meds_plugin.config.flatten import flatten
from meds_plugin.config.location import conf_dir
from meds_plugin.encoders.build import build_encoder
from tests.conftest import PROJECT
from tests.documents import PAGES, blocks, prose
from tests.trained import train

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOMES = (PROJECT, PROJECT / "meds_plugin", PROJECT / "meds_plugin/data")
# Those that say where to find what in the code.
ABOUT_THE_CODE = ("architecture", "contributing", "evidence", "method")
POSITIONAL = {"review": "run", "plot": "path", "table": "path", "predict": None, "export": None}
TOOLS = ("mkdocs", "ruff", "mypy")
page = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")


def quoted(name: str) -> list[str]:
    """Return what stands in backticks outside of blocks."""
    return [
        " ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose(PAGES[name].read_text()))
    ]


@page
def test_the_files_are_there(page: str) -> None:
    names = {name for name in quoted(page) if re.fullmatch(r"[a-z_/0-9]+(\.py|\.yaml|/)", name)}
    assert names or page.removeprefix("docs/").removesuffix(".md") not in ABOUT_THE_CODE
    # Written by a command, or the reader's.
    written = {"config.yaml", "logs/", "figures/", "site/", "val/", "backbone/my_detector.yaml"}
    missing = [
        name for name in names - written if not any((home / name).exists() for home in HOMES)
    ]
    assert [name for name in missing if "/" in name or not list(PROJECT.rglob(name))] == []


def commands(name: str) -> Iterator[list[str]]:
    """Yield the commands of a page: those of its consoles, and modules in backticks."""
    for block in (
        *blocks("console", PAGES[name].read_text()),
        *blocks("bash", PAGES[name].read_text()),
    ):
        for line in block.splitlines():
            yield from (shlex.split(part) for part in line.removeprefix("$ ").split(" && "))
    for text in quoted(name):
        if text.startswith("python -m"):
            yield shlex.split(text)


def check(words: list[str]) -> None:
    """Check that a command could run: modules, options, settings, extras."""
    if words[0] in ("torchrun", "srun"):
        words = ["python", *words[words.index("-m") :]]
    if words[0] == "pip":
        assert words[1:3] == ["install", "-e"] or words[1] == "install", words
        declared = (PROJECT / "pyproject.toml").read_text()
        for extra in re.findall(r"\[([a-z,]+)\]", words[-1]):
            assert all(re.search(rf"^{each} = \[", declared, re.M) for each in extra.split(",")), (
                words
            )
        return
    if words[0] in TOOLS:
        return
    assert words[:2] == ["python", "-m"], words
    package, _, command = words[2].partition(".")
    if package != "meds_plugin":
        assert package in ("tests", "pytest"), words
        assert importlib.util.find_spec(words[2]), words
    elif command in POSITIONAL:
        Options(command, words[3:], positional=POSITIONAL[command])
    else:
        assert command == "run", words
        overrides = [word for word in words[3:] if word != "KEY=VALUE" and word != "..."]
        if overrides[:1] == ["-m"]:  # the first of each sweep's values
            overrides = [override.partition(",")[0] for override in overrides[1:]]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            compose("config", overrides=overrides)


@page
def test_the_commands_compose(page: str) -> None:
    for words in commands(page):
        check(words)


def test_a_command_that_does_not_compose_is_found() -> None:
    with pytest.raises(ConfigCompositionException):
        check(["python", "-m", "meds_plugin.run", "selection.q=3"])
    with pytest.raises(AssertionError):
        check(["pip", "install", "-e", ".[nothing]"])


def test_there_are_commands_to_check() -> None:
    assert sum(1 for name in PAGES for _ in commands(name)) > 60


SETTING = re.compile(r"[+a-z_]+\.[a-z_.]+=\S")
PLACEHOLDERS = re.compile(r"=[\[{]?[A-Z]{3,}|\.KEY=|\.\.\.")


# The choices of a group in which a key of its own may be looked for.
CHOICES = {
    "backbone": ("dinomaly", "inp_former", "hvq", "anomalib", "entry_point"),
    "data": ("mvtec", "folder", "csv", "kolektor_sdd", "kolektor_sdd2", "mvtec_loco", "elpv"),
    "logger": ("wandb", "comet", "mlflow"),
}


def composes(overrides: list[str]) -> bool:
    groups = {"data": ["data=mvtec"]}  # it takes what most do
    for group, names in CHOICES.items():
        if any(override.lstrip("+").startswith(f"{group}.") for override in overrides):
            groups[group] = [f"{group}={name}" for name in names]
    for choices in itertools.product(*groups.values()):
        with suppress(ConfigCompositionException):
            compose("config", overrides=[*choices, *overrides])
            return True
    return False


@page
def test_the_settings_compose(page: str) -> None:
    settings = [
        text for text in quoted(page) if SETTING.match(text) and not PLACEHOLDERS.search(text)
    ]
    if page == "docs/method.md":
        assert len(settings) > 20
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for text in settings:
            words = [word for word in shlex.split(text) if not word.startswith("hydra.launcher")]
            words = [word for word in words if not word.startswith("ray.")]  # of a launcher
            words = [re.sub(r"=(\d+),.*", r"=\1", word) for word in words]  # the first of a sweep's
            assert composes(words), text


def rows(name: str) -> Iterator[list[str]]:
    for line in PAGES[name].read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@page
def test_the_settings_in_tables_exist(page: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config: Any = compose("config", ["backbone=inp_former"] if "inp_former" in page else [])
    for cells in rows(page):
        for key in re.findall(r"`([a-z_.]+)`", cells[0]):
            if "." not in key or key.endswith(
                (".json", ".csv", ".ckpt", ".yaml", ".html", ".npz", ".py")
            ):
                continue
            node = config
            for part in key.split("."):
                assert part in node, key
                node = node[part]


def test_the_defaults_in_tables_are_the_configurations() -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("config")
    checked = 0
    for name in ("docs/configuration.md", "docs/cache.md"):
        for cells in rows(name):
            keys = re.findall(r"`([a-z_.]+)`", cells[0])
            if len(keys) == 1 and re.fullmatch(r"`\w+`|[\d.]+|true|false", cells[1]):
                stated = OmegaConf.from_dotlist([f"value={cells[1].strip('`')}"]).value
                assert OmegaConf.select(config, keys[0]) == stated, keys
                checked += 1
    assert checked > 20


def test_every_key_of_conf_is_in_the_reference() -> None:
    spec = importlib.util.spec_from_file_location("hooks", PROJECT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    sys.modules["hooks"] = hooks  # for its dataclass
    spec.loader.exec_module(hooks)
    text = hooks.on_page_markdown(PAGES["docs/configuration.md"].read_text())
    assert "| `memory.ratio` | `0.1` | share of the training images in a memory |" in text
    assert "| `backbone.optimizer.warmup` | `100` |" in text
    assert "Rivals, with their authors' settings" in text
    for file in (PROJECT / "conf").rglob("*.yaml"):
        name = file.relative_to(PROJECT).as_posix()
        section = text.partition(f"#### `{name}`")[2].partition("\n###")[0]
        if name.startswith("conf/hydra/launcher"):
            prefix = "hydra.launcher."
        else:
            folder = file.parent.name
            whole = folder in {"conf", "encoder", "experiment"}
            prefix = "" if whole else f"{folder}."
        content = OmegaConf.to_container(OmegaConf.load(file))
        assert isinstance(content, dict)
        content.pop("defaults", None)
        for key, value in flatten(content).items():
            hidden = key.startswith("hydra.help.") or any(p.startswith("_") for p in key.split("."))
            if not hidden and value != {}:
                assert f"| `{prefix}{key}` |" in section, (name, key)
        # Explained by its own comment, its section's, or that of the key that it repeats.
        written = re.findall(r"^\| `(.+?)` \| (.*?) \| ?(.*?) ?\|$", section, re.M)
        sections = tuple(key.removesuffix("*") for key, _, _ in written if key.endswith(".*"))
        for key, default, comment in written:
            assert comment or default.startswith("`${") or key.startswith(sections), (name, key)


# Python examples: what runs them. Others stand inside lists, as parts of a recipe.
EXAMPLES = {
    "README.md": "tests/test_readme.py",
    "docs/data.md": "test_a_folder_can_be_read_in_python",
    "docs/predict.md": "test_new_images_can_be_judged",
    "docs/detectors/anomalib.md": "test_an_anomalib_model_can_be_wrapped",
    "docs/detectors/your_own.md": "test_your_own_detector_can_be_wrapped",
}


def example(name: str) -> str:
    (code,) = blocks("python", PAGES[name].read_text())
    return code


def execute(name: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "docs"}
    exec(compile(example(name), name, "exec"), scope)  # noqa: S102 - our own documentation
    return scope


def test_there_is_a_test_for_every_python_example() -> None:
    found = {name: blocks("python", path.read_text()) for name, path in PAGES.items()}
    assert {name for name, codes in found.items() if codes} == set(EXAMPLES)
    assert all(len(codes) <= 1 for codes in found.values())


def test_new_images_can_be_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "RUN")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(name)
    assert execute("docs/predict.md")["found"].scores.shape == (2,)


def test_a_folder_can_be_read_in_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PHOTOS/monday").mkdir(parents=True)
    for name in ("b.png", "monday/a.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / "PHOTOS" / name)
    assert execute("docs/data.md")["names"] == ["b.png", "monday/a.png"]


def test_your_own_detector_can_be_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code = example("docs/detectors/your_own.md")
    assert [line[-3:] for line in code.splitlines() if line[-3:-1] == "# "] == ["# 1", "# 2", "# 3"]
    scope = execute("docs/detectors/your_own.md")
    assert sorted(scope["suspicious_first"].tolist()) == list(range(24))
    assert scope["model"].global_step == 40


def test_an_anomalib_model_can_be_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("anomalib.models", reason="the extra anomalib is not installed")
    create = timm.create_model
    monkeypatch.setattr(  # no download
        timm, "create_model", lambda *args, **given: create(*args, **{**given, "pretrained": False})
    )
    monkeypatch.chdir(tmp_path)
    scope = execute("docs/detectors/anomalib.md")
    assert sorted(scope["suspicious_first"].tolist()) == list(range(12))
    assert scope["model"].global_step == 10
    assert scope["model"].detector.model is scope["student"].model


def recipes() -> list[str]:
    text = PAGES["docs/contributing.md"].read_text()
    found = re.findall(r"^    ```python\n(.*?)^    ```", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"^    ", "", code, flags=re.MULTILINE) for code in found]


def test_the_recipe_of_a_layout_finds_images(tmp_path: Path) -> None:
    for name in ("ok_1.png", "ok_2.png", "bad_1.png"):
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    scope: dict[str, Any] = {}
    exec(recipes()[0], scope)  # noqa: S102 - our own documentation
    split = scope["read_stems"](tmp_path)
    assert [sample.path for sample in split.train] == ["ok_1.png"]
    assert [sample.path for sample in split.test] == ["ok_2.png", "bad_1.png"]


def test_the_recipe_of_a_detector_is_a_detector() -> None:
    scope: dict[str, Any] = {}
    exec(recipes()[1], scope)  # noqa: S102 - our own documentation
    encoder = build_encoder(
        model="resnet18", layers=[1, 2], image_size=64, weights="random", pyramid={}
    )
    detector = scope["Bottleneck"](encoder)
    assert detector(torch.randn(2, 3, 64, 64)).shape == (2, *encoder.grid)
    MeDSWrapper(detector)  # which checks it


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("material", "mkdocstrings_handlers.python"):
        with suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module):
                continue
        pytest.skip("the extra docs is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    process = subprocess.run(
        build,
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    for name in PAGES.keys() - {"README.md"}:
        assert (tmp_path / name.removeprefix("docs/")).with_suffix(".html").is_file(), name
    api = (tmp_path / "api.html").read_text()
    assert [name for name in meds_plugin.__all__ if f'id="meds_plugin.{name}"' not in api] == []
