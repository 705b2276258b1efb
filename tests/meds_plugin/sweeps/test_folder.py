from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from meds_plugin.sweeps.folder import (
    Job,
    find_jobs,
    job_name,
    locked,
    place,
    read_job,
    write_job,
)

if TYPE_CHECKING:
    from pathlib import Path


def job(**settings: Any) -> Job:
    return Job(overrides=[], settings=settings, sweep="first")


@pytest.mark.parametrize(
    ("overrides", "swept", "name"),
    [
        (["noise=0.1", "seed=3", "method=plain"], {"noise", "method"}, "method-plain+noise-0.1"),
        (["method=plain", "noise=0.1"], {"method", "noise"}, "method-plain+noise-0.1"),
        (["noise=0.1"], set(), "job"),
        (["+trainer.fast_dev_run=true"], {"trainer.fast_dev_run"}, "trainer.fast_dev_run-true"),
        (["selection.k=-0.5"], {"selection.k"}, "selection.k--0.5"),
        (["noise=null"], {"noise"}, "noise-null"),
    ],
)
def test_a_job_is_named_by_what_is_swept(overrides: list[str], swept: set[str], name: str) -> None:
    assert job_name(overrides, swept) == name


def test_values_that_no_folder_can_have_stay_apart() -> None:
    given = ["/a/b.pth", "/a-b.pth", "'a b.pth'", "[a,b.pth]", "a" * 200, "a" * 201, "a=b,c", "ä"]
    names = [job_name([f"encoder.weights={value}"], {"encoder.weights"}) for value in given]
    assert len(set(names)) == len(given)
    for name in names:
        assert len(name) < 120
        # As a user types it, unquoted.
        override = OverridesParser.create().parse_override(f"resume=multirun/{name}")
        assert override.value() == f"multirun/{name}"
    assert names[0].startswith("encoder.weights-a-b.pth-")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_job(tmp_path) is None
    first = job(noise=0.1, data={"root": None})
    write_job(tmp_path, first)
    assert read_job(tmp_path) == first
    write_job(tmp_path, first, status=1, reason="it broke")
    again = read_job(tmp_path)
    assert again is not None
    assert (again.settings, again.status, again.reason) == (first.settings, 1, "it broke")


def test_the_same_settings_have_one_folder_whatever_it_is_called(tmp_path: Path) -> None:
    for name, noise in (("noise-0", 0), ("noise-0.1", 0.1)):
        (tmp_path / name).mkdir()
        write_job(tmp_path / name, job(noise=noise, method="meds"))
    assert [folder.name for folder, _ in find_jobs(tmp_path)] == ["noise-0", "noise-0.1"]
    here = {"noise": 0.1, "method": "meds"}
    assert place(tmp_path, "noise-0.1", here).name == "noise-0.1"
    assert place(tmp_path, "method-meds+noise-0.1", here).name == "noise-0.1"
    other = {"noise": 0.1, "method": "plain"}
    assert place(tmp_path, "method-plain+noise-0.1", other).name == "method-plain+noise-0.1"
    # The name is taken by other settings: that is for the caller to refuse.
    assert place(tmp_path, "noise-0.1", other).name == "noise-0.1"


def test_a_folder_is_one_processs_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with locked(tmp_path):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        thread.join(timeout=0.2)  # long enough to take a free lock
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        assert "do not start its sweep twice" in caplog.text
