"""Tests of `meds_plugin.utils.openmp`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from meds_plugin.utils.openmp import limit_spinning

_GIVEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _GIVEN:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_waiting_threads_turn_for_less_than_by_default() -> None:
    limit_spinning()
    assert 0 < int(os.environ["GOMP_SPINCOUNT"]) < 300_000


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ[name] == value
    assert (name == "GOMP_SPINCOUNT") == ("GOMP_SPINCOUNT" in os.environ)


@pytest.mark.parametrize(
    "command", ["run", "predict", "export", "plot", "table", "review.__main__"]
)
def test_commands_call_it_before_torch_is_there(command: str) -> None:
    code = (
        "import os, sys\n"
        f"from meds_plugin.{command} import main\n"
        "assert not {'torch', 'faiss'} & set(sys.modules), 'too late for OpenMP'\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in _GIVEN}
    command_line = [sys.executable, "-c", code, "no_such_key=1"]
    done = subprocess.run(command_line, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == "20000"
