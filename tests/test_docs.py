"""What the documents name is there: files, settings, commands."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from meds_plugin.config.location import conf_dir
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = sorted((PROJECT / "docs").glob("*.md"))
HOMES = (PROJECT, PROJECT / "meds_plugin", PROJECT / "meds_plugin/data")


def quoted(document: Path) -> list[str]:
    """Return what stands in backticks outside of blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_files_are_there(document: Path) -> None:
    names = {name for name in quoted(document) if re.fullmatch(r"[a-z_/0-9]+(\.py|\.yaml|/)", name)}
    assert names
    missing = [name for name in names if not any((home / name).exists() for home in HOMES)]
    assert [name for name in missing if "/" in name or not list(PROJECT.rglob(name))] == []


def composes(overrides: list[str], backbone: str) -> bool:
    try:
        compose("config", overrides=["data=mvtec", f"backbone={backbone}", *overrides])
    except ConfigCompositionException:
        return False
    return True


def test_the_settings_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDS_STARTED", "now")
    texts = quoted(PROJECT / "docs" / "method.md")
    settings = [text for text in texts if re.match(r"[a-z_]+\.[a-z_.]+=\S", text)]
    assert len(settings) > 20
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for text in settings:
            assert any(composes(shlex.split(text), name) for name in ("dinomaly", "hvq")), text
