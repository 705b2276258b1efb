"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir

from meds_plugin.conf_dir import conf_dir
from tests.conftest import PROJECT
from tests.test_run import TINY, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_first_two_commands_are_one_line_each() -> None:
    commands = blocks("bash")
    assert len(commands) == 2
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
        assert words[:3] == ["python", "-m", "meds_plugin.run"]
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            compose("config", overrides=words[3:])


def test_the_settings_it_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config: Any = compose("config")
    for key in re.findall(r"^\| `([a-z_.]+)`", README, flags=re.MULTILINE):
        if "." in key and not key.endswith((".json", ".csv", ".ckpt", ".yaml")):
            node = config
            for part in key.split("."):
                assert part in node, key
                node = node[part]


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "readme"}
    (code,) = (block for block in blocks("python") if "class Autoencoder" in block)
    assert [line[-3:] for line in code.splitlines() if line[-3:-1] == "# "] == ["# 1", "# 2", "# 3"]
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102 - our own README
    assert sorted(scope["suspicious_first"].tolist()) == list(range(24))
    assert scope["model"].global_step == 40
