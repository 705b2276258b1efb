"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.conftest import PROJECT
from tests.documents import PAGES, blocks
from tests.processes import run
from tests.test_run import TINY

if TYPE_CHECKING:
    from pathlib import Path

README = PAGES["README.md"].read_text()


def test_it_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 200


def test_the_first_two_commands_are_one_line_each() -> None:
    commands = blocks("bash", README)
    assert len(commands) == 2
    # Whatever shell they are for, no other block may come before these.
    assert blocks("(?:bash|sh|console)", README)[:2] == commands
    assert all(len(command.splitlines()) == 1 for command in commands)
    assert all(command.startswith("pip install -e ") for command in commands)


def test_the_first_command_runs_the_main_job(tmp_path: Path) -> None:
    command = shlex.split(blocks("bash", README)[0].split("&&")[1])
    assert command[:3] == ["python", "-m", "meds_plugin.run"]
    status, out, err = run(*command[3:], *TINY, f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 0, err
    assert "mean" in out


def test_the_second_command_runs_these_tests() -> None:
    command = blocks("bash", README)[1]
    assert command.split("&&")[-1].split()[:3] == ["python", "-m", "pytest"]


def test_the_site_gives_the_same_two_commands() -> None:
    for command, page in zip(blocks("bash", README), ("index", "contributing"), strict=True):
        assert f"$ {command}" in PAGES[f"docs/{page}.md"].read_text()


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 20
    assert [target for target in targets if not (PROJECT / target).is_file()] == []


def test_its_picture_is_small_and_can_be_read() -> None:
    (name,) = re.findall(r"^!\[.+\]\((.+)\)$", README, flags=re.MULTILINE)
    assert (PROJECT / name).stat().st_size < 300_000
    with Image.open(PROJECT / name) as image:
        image.load()
        assert image.width >= 800


def test_its_figures_are_those_of_the_evidence() -> None:
    # In the table of both, Dinomaly's rows: noise, then plain and MeDS, bold or not.
    evidence = PAGES["docs/evidence.md"].read_text()
    section = evidence.partition("## What is won back")[2].partition("\n## ")[0]
    table = section.split("Dinomaly", 1)[1].replace("**", "")
    cells = re.findall(r"\*{0,2}(0\.\d{3})\*{0,2} ± (0\.\d{3})", README)
    assert len(cells) == 24
    assert [cell for cell in cells if " ± ".join(cell) not in table] == []


def test_three_lines_train_a_detector(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (page,) = blocks("python", PAGES["docs/detectors/your_own.md"].read_text())
    (code,) = blocks("python", README)
    made: dict[str, Any] = {"__name__": "readme"}
    exec(page.partition("model = ")[0], made)  # noqa: S102 - our own documentation
    made["detector"] = made["Autoencoder"]()
    code = code.replace(
        "distill_steps=300, finetune_steps=600", "distill_steps=3, finetune_steps=3"
    )
    exec(code, made)  # noqa: S102 - our own README
    assert made["model"].global_step == 6
    assert made["model"].training_scores().score.shape == (24,)
