from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from meds_plugin.encoding.cache import folder as cache_folder
from meds_plugin.encoding.cache.folder import CacheFolder
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

KB = 1e-6  # in GB
SPAWN = multiprocessing.get_context("spawn")


def opened(path: Path, limit_gb: float = 1.0) -> CacheFolder:
    folder = CacheFolder(path, limit_gb=limit_gb)
    folder.open()
    return folder


def files(path: Path) -> set[str]:
    return {file.stem for file in path.glob("*/*.tensor")}


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(2, 5, 7).to(torch.bfloat16),
        torch.randn(6).half(),
        torch.arange(5),
        torch.randn(4, 6).t(),
    ],
)
def test_a_tensor_comes_back_as_it_was(tmp_path: Path, tensor: Tensor) -> None:
    first = opened(tmp_path)
    assert first.read("space/a") is None
    assert first.write("space/a", tensor)
    for folder in (first, opened(tmp_path)):
        found = folder.read("space/a")
        assert found is not None
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor)


def test_what_is_read_may_be_changed_without_harm(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.write("space/a", torch.ones(4))
    found = folder.read("space/a")
    assert found is not None
    found.zero_()
    again = folder.read("space/a")
    assert again is not None
    assert torch.equal(again, torch.ones(4))


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "header", "swapped"])
def test_a_damaged_file_counts_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = opened(tmp_path)
    folder.write("space/a", torch.randn(50))
    folder.write("space/b", torch.randn(50))
    path = tmp_path / "space" / "a.tensor"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-8:]
    elif damage == "empty":
        content.clear()
    elif damage == "bit":
        content[-3] ^= 16
    elif damage == "header":
        content[:20] = b"x" * 20
    else:
        content[:] = path.with_name("b.tensor").read_bytes()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path).read("space/a") is None
    (message,) = caplog.messages
    assert str(path) in message
    assert "encoding the image again" in message
    assert files(tmp_path) == {"b"}  # so that it can be written anew
    assert folder.write("space/a", torch.zeros(2))


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    before = opened(tmp_path)
    for place, name in enumerate("abcd"):
        before.write(f"space/{name}", torch.zeros(250))  # about 1.1 KB each
        age(tmp_path / "space" / f"{name}.tensor", 100 - place)
    before.close()
    looked_for = opened(tmp_path)
    looked_for.read("space/a")  # now the youngest, but of a process that is gone
    looked_for.close()
    folder = opened(tmp_path, limit_gb=5.1 * KB)
    assert folder.write("space/e", torch.zeros(250))
    assert files(tmp_path) == {"a", "c", "d", "e"}
    assert folder.write("space/f", torch.zeros(500))
    assert files(tmp_path) == {"a", "e", "f"}


def test_files_in_use_stay(tmp_path: Path) -> None:
    reader = opened(tmp_path)
    for name in "ab":
        reader.write(f"space/{name}", torch.zeros(250))
        age(tmp_path / "space" / f"{name}.tensor", 100)
    other = opened(tmp_path, limit_gb=3.2 * KB)
    assert not other.write("space/c", torch.zeros(250))
    assert files(tmp_path) == {"a", "b"}
    reader.close()
    assert other.write("space/c", torch.zeros(250))
    assert "c" in files(tmp_path)
    assert len(files(tmp_path)) == 2


def test_no_more_is_promised_than_there_is_room_for(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, limit_gb=10 * KB)
    assert folder.promise(6000)
    assert not folder.promise(5000)
    assert folder.promise(4000)


def write_until_killed(path: Path, ready: Event) -> None:
    folder = CacheFolder(path, limit_gb=1.0)
    folder.open()
    folder.write("space/a", torch.zeros(100))

    def hang(self: Path, target: Path) -> Path:
        ready.set()
        time.sleep(60)
        return target

    Path.replace = hang  # type: ignore[assignment,method-assign]
    folder.write("space/b", torch.zeros(100))


def test_a_crash_between_writing_and_renaming_leaves_nothing_behind(tmp_path: Path) -> None:
    ready = SPAWN.Event()
    process = SPAWN.Process(target=write_until_killed, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    watcher = opened(tmp_path)
    watcher.close()
    assert len(list(tmp_path.glob("*.tmp"))) == 1  # its process still lives
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (uses,) = tmp_path.glob("*.uses")
    age(uses, 599)
    opened(tmp_path).close()
    assert len(list(tmp_path.glob("*.tmp"))) == 1  # it might be on another machine, and busy
    age(uses, 601)
    folder = opened(tmp_path)
    assert folder.read("space/b") is None
    found = folder.read("space/a")
    assert found is not None
    folder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space"]


def write_many(path: Path, go: Event) -> None:
    folder = CacheFolder(path, limit_gb=1.0)
    folder.open()
    go.wait(60)
    for place in range(40):
        folder.write(f"space/{place}", torch.full((2000,), float(place)))
        found = folder.read(f"space/{place}")
        assert found is not None


def test_two_processes_may_write_the_same_at_once(tmp_path: Path) -> None:
    go = SPAWN.Event()
    processes = [SPAWN.Process(target=write_many, args=(tmp_path, go)) for _ in range(2)]
    for process in processes:
        process.start()
    go.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    folder = opened(tmp_path)
    for place in range(40):
        found = folder.read(f"space/{place}")
        assert found is not None
        assert torch.equal(found, torch.full((2000,), float(place)))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_scratch_file_is_there_for_a_while(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, limit_gb=0.0)
    with folder.scratch(1000) as path:
        assert path.stat().st_size == 1000
        assert path.parent == tmp_path
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), folder.scratch(10) as path:
        raise ZeroDivisionError
    assert not path.exists()


def test_a_folder_for_one_run_goes_with_it(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", limit_gb=1.0)
    folder.close(remove=True)
    folder.open()
    folder.write("space/a", torch.zeros(3))
    folder.close(remove=True)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache\.dir=.*file cannot be written"):
        opened(tmp_path / "file")


def test_what_was_read_stays_when_its_file_is_cut_or_removed(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.write("space/a", torch.ones(100_000))
    found = folder.read("space/a")
    path = tmp_path / "space" / "a.tensor"
    os.truncate(path, 0)  # a mapped file would end the process
    assert found is not None
    assert torch.equal(found, torch.ones(100_000))
    path.unlink()
    assert folder.read("space/a") is None
    assert folder.write("space/a", torch.ones(100_000))
    assert folder.read("space/a") is not None


def test_a_process_shows_that_it_lives_as_long_as_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = opened(tmp_path)
    for name in "ab":
        reader.write(f"space/{name}", torch.zeros(250))
        age(tmp_path / "space" / f"{name}.tensor", 1000)
    (uses,) = tmp_path.glob("*.uses")
    age(uses, 700)
    monkeypatch.setattr(cache_folder, "_BEAT", 0.0)
    reader.read("space/a")
    other = opened(tmp_path, limit_gb=3.2 * KB)
    assert not other.write("space/c", torch.zeros(250))
    age(uses, 700)
    assert other.write("space/c", torch.zeros(250))
    assert reader.read("space/a") is None or reader.read("space/b") is None
