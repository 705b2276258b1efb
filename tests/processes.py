"""Starts the command lines in processes of their own.

Most of what a command line takes is importing torch and Lightning, so `run` forks from a process
that has imported them and nothing else: the tests are several times as fast, and as far from each
other as before. `start` starts Python anew, for tests that kill it or in which it starts others.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run", "start"]

_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_FORKS = sys.platform == "linux"  # elsewhere torch and a fork do not get on


def start(
    *arguments: str,
    cwd: Path = PROJECT,
    module: str = "run",
    site: Path | None = None,
    session: bool = False,
) -> subprocess.Popen[str]:
    """Start ``python -m meds_plugin.MODULE``; packages are found in ``site``, too.

    In a session of its own, it and what it starts can be sent a signal together.
    """
    paths = os.pathsep.join(str(path) for path in (PROJECT, site) if path is not None)
    return subprocess.Popen(
        [sys.executable, "-m", f"meds_plugin.{module}", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, **_ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=session,
    )


def run(*arguments: str, cwd: Path = PROJECT, site: Path | None = None) -> tuple[int, str, str]:
    """Run ``python -m meds_plugin.run`` to its end: status, output, errors."""
    # Ranks and the jobs of a sweep are started by what stands on the command line.
    if not _FORKS or any(each == "-m" or "devices=" in each for each in arguments):
        process = start(*arguments, cwd=cwd, site=site)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["meds_plugin.job", "meds_plugin.run"])
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(_ONE_THREAD)  # for the process that is forked, which starts here
        try:
            given = (arguments, cwd, dict(os.environ), files, [str(site)] if site else [])
            child = context.Process(target=_main, args=given)
            child.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        child.join(300)
        if child.exitcode is None:
            child.kill()
        out, err = (file.read_text() for file in files)
        return child.exitcode or 0, out, err


def _main(
    arguments: Sequence[str],
    cwd: Path,
    environment: dict[str, str],
    files: Sequence[Path],
    paths: Sequence[str],
) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = paths
    sys.argv = ["meds_plugin/run.py", *arguments]
    from meds_plugin.run import main

    main()
