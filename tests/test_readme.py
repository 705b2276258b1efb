"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import timm
from hydra import compose, initialize_config_dir
from PIL import Image

from meds_plugin.config.command_line import Options
from meds_plugin.config.location import conf_dir
from tests.conftest import PROJECT
from tests.processes import run
from tests.test_run import TINY
from tests.trained import train

if TYPE_CHECKING:
    from pathlib import Path

README = (PROJECT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_one_line_each() -> None:
    commands = blocks("bash")
    assert len(commands) == 2
    # Whatever shell they are for, no other block may come before these.
    assert blocks("(?:bash|sh|console)")[:2] == commands
    assert all(len(command.splitlines()) == 1 for command in commands)
    assert all(command.startswith("pip install -e ") for command in commands)


def test_the_first_command_runs_the_main_job(tmp_path: Path) -> None:
    command = shlex.split(blocks("bash")[0].split("&&")[1])
    assert command[:3] == ["python", "-m", "meds_plugin.run"]
    status, out, err = run(*command[3:], *TINY, f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 0, err
    assert "mean" in out


def test_the_second_command_runs_these_tests() -> None:
    assert blocks("bash")[1].split("&&")[-1].split()[:3] == ["python", "-m", "pytest"]


def test_the_other_commands_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")
    commands = [line for block in blocks("console") for line in block.splitlines()]
    assert commands
    for line in commands:
        words = shlex.split(line.removeprefix("$ "))
        if words[2] in ("meds_plugin.predict", "meds_plugin.export"):
            Options(words[2].split(".")[1], words[3:])
            continue
        assert words[:3] == ["python", "-m", "meds_plugin.run"]
        overrides = words[3:]
        if overrides[0] == "-m":  # the first of each sweep's values
            overrides = [override.partition(",")[0] for override in overrides[1:]]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            compose("config", overrides=overrides)


def test_the_settings_it_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config: Any = compose("config")
    for key in re.findall(r"^\| `([a-z_.]+)`", README, flags=re.MULTILINE):
        if "." in key and not key.endswith((".json", ".csv", ".ckpt", ".yaml", ".html", ".npz")):
            node = config
            for part in key.split("."):
                assert part in node, key
                node = node[part]


def examples() -> dict[str, str]:
    """Return the Python example of every section that has one."""
    sections = re.split(r"^## ", README, flags=re.MULTILINE)[1:]
    found = {section.splitlines()[0]: blocks("python", section) for section in sections}
    assert all(len(codes) <= 1 for codes in found.values())
    return {title: codes[0] for title, codes in found.items() if codes}


def execute(title: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "readme"}
    code = examples()[title]
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102 - our own README
    return scope


def test_there_is_a_test_for_every_python_example() -> None:
    assert list(examples()) == [
        "Predict and export",
        "Wrap your own detector",
        "Wrap an anomalib model",
    ]


def test_new_images_can_be_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "RUN")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 10)).save(name)
    assert execute("Predict and export")["found"].scores.shape == (2,)


def test_your_own_detector_can_be_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code = examples()["Wrap your own detector"]
    assert [line[-3:] for line in code.splitlines() if line[-3:-1] == "# "] == ["# 1", "# 2", "# 3"]
    scope = execute("Wrap your own detector")
    assert sorted(scope["suspicious_first"].tolist()) == list(range(24))
    assert scope["model"].global_step == 40


def test_an_anomalib_model_can_be_wrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("anomalib.models", reason="the extra anomalib is not installed")
    create = timm.create_model
    monkeypatch.setattr(  # no download
        timm, "create_model", lambda *args, **given: create(*args, **{**given, "pretrained": False})
    )
    monkeypatch.chdir(tmp_path)
    scope = execute("Wrap an anomalib model")
    assert sorted(scope["suspicious_first"].tolist()) == list(range(12))
    assert scope["model"].global_step == 10
    assert scope["model"].detector.model is scope["student"].model
